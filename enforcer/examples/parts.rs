use std::io::BufRead;
fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let text = if line.starts_with('{') && line.contains("\"command\"") {
            let v: serde_json::Value = serde_json::from_str(&line).unwrap();
            v["command"].as_str().unwrap().to_owned()
        } else {
            line.replace("\\n", "\n")
        };
        let s = enforcer::decide::shell::parse(&text);
        println!("== {text}");
        for p in &s.parts {
            println!(
                "   {:?} {:?}{}",
                p.kind,
                p.texts(),
                if p.words.iter().any(|w| !w.known()) {
                    " ~"
                } else {
                    ""
                }
            );
        }
        if s.broken || s.refused.is_some() {
            println!("   broken {} refused {:?}", s.broken, s.refused);
        }
    }
}
