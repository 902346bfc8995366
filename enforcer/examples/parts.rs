use std::io::BufRead;
fn main() {
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let s = enforcer::decide::shell::parse(&line);
        println!("{line}");
        for p in s.parts {
            println!("    {:?} {:?}", p.kind, p.texts());
        }
        if s.broken || s.refused.is_some() {
            println!("    broken {} {:?}", s.broken, s.refused);
        }
    }
}
