//! Arguments, their bytes, and the depth of the process tree.

use enforcer_tests::root;
use serde_json::json;

use crate::scene::{Scene, fine, policy, told};

#[test]
fn too_many_arguments_too_many_bytes_and_too_deep_are_denied() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({
        "limits": {"arguments": 50, "argv_bytes": 2_000, "depth": 3},
        // What is too complex is no denial in a row.
        "breaker": {"denials": 2},
    })));
    let ended = scene.run(&[
        "arguments A 50 1",
        "arguments A 51 1",
        "arguments A 1 1500",
        "arguments A 1 2000",
        "deep A 1",
        "deep A 3",
        "deep A 4",
        "deep A 9",
        "exec A 1 1",
    ]);
    let bytes = 2_000 + 1 + scene.fine.as_os_str().len() + 1;
    assert_eq!(
        told(&ended.trail),
        [
            "Complexity limit exceeded: 51/50 arguments".to_owned(),
            format!("Complexity limit exceeded: {bytes}/2000 bytes of arguments"),
            "Complexity limit exceeded: 4/3 levels of the process tree".to_owned(),
            "Complexity limit exceeded: 9/3 levels of the process tree".to_owned(),
        ]
    );
    // Without arguments: those that were deep, and the last one.
    assert_eq!(fine(&ended.trail), 3);
}
