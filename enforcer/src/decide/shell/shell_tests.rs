use super::*;

fn texts(text: &str) -> Vec<Vec<String>> {
    parse(text).parts.iter().map(Part::texts).collect()
}

#[test]
fn quotes_do_not_hide_a_program() {
    assert_eq!(texts("r\"\"m -rf /x"), [["rm", "-rf", "/x"]]);
}
