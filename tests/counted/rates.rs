//! A rate under many threads.

use enforcer_tests::root;
use serde_json::json;

use crate::scene::{Scene, fine, policy};

#[test]
fn threads_at_once_get_exactly_what_there_is() {
    if !root() {
        return;
    }
    let scene = Scene::new(&policy(&json!({"limits": {"exec": "100/1h"}})));
    let ended = scene.run(&["exec A 6 30"]);
    assert_eq!(ended.text(), "exec 100 80\n");
    assert_eq!(fine(&ended.trail), 100);
}
