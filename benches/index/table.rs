//! What is printed.

use std::time::{Duration, Instant};

/// Lines of the table, in order.
#[derive(Default)]
pub struct Table(Vec<(String, String, String, String)>);

impl Table {
    /// A figure.
    pub fn figure(&mut self, what: &str, figure: impl ToString) {
        eprintln!("{what}: {}", figure.to_string());
        self.0.push((
            what.to_string(),
            figure.to_string(),
            String::new(),
            String::new(),
        ));
    }

    /// How long things took.
    pub fn times(&mut self, what: &str, mut times: Vec<Duration>) {
        times.sort();
        let at = |part: f64| shown(times[(times.len() as f64 * part) as usize]);
        let (median, p99, longest) = (at(0.5), at(0.99), shown(times[times.len() - 1]));
        eprintln!("{what}: {median}, {p99}, {longest}");
        self.0.push((what.to_string(), median, p99, longest));
    }

    /// Asks so many times.
    pub fn measure(&mut self, what: &str, count: u64, mut ask: impl FnMut()) {
        let one = |_| {
            let before = Instant::now();
            ask();
            before.elapsed()
        };
        self.times(what, (0..count).map(one).collect());
    }

    /// As Markdown.
    pub fn print(&self) {
        println!("| what | figure or median | p99 | longest |\n|---|---|---|---|");
        for (what, median, p99, longest) in &self.0 {
            println!("| {what} | {median} | {p99} | {longest} |");
        }
    }
}

/// A duration with three digits or so.
pub fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}
