//! The table and its JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::sample::{Estimate, Pairs};

/// What is measured, and how it turned out.
#[derive(Debug)]
pub struct Figure {
    name: String,
    bare: Option<f64>,
    measured: f64,
    unit: &'static str,
    compared: Option<(Estimate, &'static str)>,
    n: usize,
    goal: Option<(String, bool)>,
}

impl Figure {
    /// A single number.
    pub fn new(name: impl Into<String>, measured: f64, unit: &'static str, n: usize) -> Self {
        Self {
            name: name.into(),
            bare: None,
            measured,
            unit,
            compared: None,
            n,
            goal: None,
        }
    }

    /// A pair, as the ratio to bare. `scale` turns nanoseconds into `unit`.
    pub fn ratio(name: impl Into<String>, pairs: &Pairs, scale: f64, unit: &'static str) -> Self {
        let mut figure = Self::pair(name, pairs, scale, unit);
        figure.compared = Some((pairs.ratio(), "x"));
        figure
    }

    /// A pair, as the difference to bare.
    pub fn difference(
        name: impl Into<String>,
        pairs: &Pairs,
        scale: f64,
        unit: &'static str,
    ) -> Self {
        let mut figure = Self::pair(name, pairs, scale, unit);
        let Estimate { value, low, high } = pairs.difference();
        figure.compared = Some((
            Estimate {
                value: value * scale,
                low: low * scale,
                high: high * scale,
            },
            unit,
        ));
        figure
    }

    fn pair(name: impl Into<String>, pairs: &Pairs, scale: f64, unit: &'static str) -> Self {
        let mut figure = Self::new(
            name,
            crate::sample::median(&pairs.other) * scale,
            unit,
            pairs.other.len(),
        );
        figure.bare = Some(crate::sample::median(&pairs.bare) * scale);
        figure
    }

    /// Names the goal and whether it is met.
    pub fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.goal = Some((goal.into(), met));
        self
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "unit": self.unit,
            "bare": self.bare,
            "measured": self.measured,
            "compared": self.compared.map(|(estimate, unit)| json!({
                "unit": unit,
                "median": estimate.value,
                "low95": estimate.low,
                "high95": estimate.high,
            })),
            "n": self.n,
            "goal": self.goal.as_ref().map(|(goal, _)| goal),
            "met": self.goal.as_ref().map(|(_, met)| met),
        })
    }
}

/// Three to four digits, whatever the size.
fn digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = self.bare.map_or_else(String::new, |bare| {
            format!("{} {}", digits(bare), self.unit)
        });
        let measured = format!("{} {}", digits(self.measured), self.unit);
        let compared = match self.compared {
            None => String::new(),
            Some((Estimate { value, low, high }, "x")) => {
                format!("{value:.4}x [{low:.4}, {high:.4}]")
            }
            Some((Estimate { value, low, high }, unit)) => {
                format!("{value:+.3} {unit} [{low:+.3}, {high:+.3}]")
            }
        };
        let goal = match &self.goal {
            None => String::new(),
            Some((goal, true)) => format!("{goal}: met"),
            Some((goal, false)) => format!("{goal}: MISSED"),
        };
        let line = format!(
            "  {:<46} {bare:>12} {measured:>12}  {compared:<30} {:>6}  {goal}",
            self.name, self.n
        );
        f.write_str(line.trim_end())
    }
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub struct Report {
    quick: bool,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Report {
    /// An empty report.
    pub fn new(quick: bool) -> Self {
        Self {
            quick,
            ..Self::default()
        }
    }

    /// What the columns mean.
    pub fn heading(&self) {
        println!(
            "Figures on kernel {}, {} CPUs{}. Medians; a comparison is the median over pairs of turns with its 95 % range.",
            kernel(),
            cpus(),
            if self.quick { ", quick" } else { "" }
        );
        println!(
            "  {:<46} {:>12} {:>12}  {:<30} {:>6}  goal",
            "what", "bare", "measured", "against bare [95 %]", "n"
        );
    }

    /// Prints and keeps a figure.
    pub fn add(&mut self, figure: Figure) {
        println!("{figure}");
        self.figures.push(figure);
    }

    /// Prints and keeps a remark.
    pub fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        println!("    {note}");
        self.notes.push(note);
    }

    /// The last line.
    pub fn summary(&self) {
        let goals: Vec<bool> = self
            .figures
            .iter()
            .filter_map(|figure| Some(figure.goal.as_ref()?.1))
            .collect();
        let met = goals.iter().filter(|met| **met).count();
        println!("{met} of {} goals met", goals.len());
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        json!({
            "kernel": kernel(),
            "cpus": cpus(),
            "quick": self.quick,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

fn kernel() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
