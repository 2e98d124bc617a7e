//! Pairs of measurements and what can honestly be said about them.

use std::{fmt, time::Duration};

/// One measurement of one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// What a person waits.
    pub(crate) wall: Duration,
    /// CPU seconds of the side's processes on the host.
    pub(crate) cpu: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s ({:.1} CPU s)", self.wall.as_secs_f64(), self.cpu)
    }
}

/// Two measurements that met the same noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) ours: Sample,
    pub(crate) peer: Sample,
}

/// All pairs of one kind of work.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    pub(crate) pairs: Vec<Pair>,
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), pairs: Vec::new() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Does its name begin so?
    pub(crate) fn is_called(&self, beginning: &str) -> bool {
        self.name.starts_with(beginning)
    }
}

/// Does both of the `n`th pair, ours and the peer's; the one that goes first changes from pair to pair.
pub(crate) fn in_turns<T>(n: usize, ours: impl FnOnce() -> T, peer: impl FnOnce() -> T) -> (T, T) {
    if n % 2 == 1 {
        let ours = ours();
        (ours, peer())
    } else {
        let peer = peer();
        (ours(), peer)
    }
}

/// First quartile, median and third quartile; `None` of nothing.
pub(crate) fn quartiles(values: Vec<f64>) -> Option<[f64; 3]> {
    quantiles(values, [0.25, 0.5, 0.75])
}

/// Below which of the values these parts of them lie; `None` of nothing.
pub(crate) fn quantiles<const N: usize>(mut values: Vec<f64>, parts: [f64; N]) -> Option<[f64; N]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(parts.map(|q: f64| {
        let at = q * last as f64;
        let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }))
}

/// One line for each row; ratios below 1 are in our favour.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<40} {:>6} {:>22} {:>22} {:>20}\n",
        "ours : peer", "pairs", "time, median (middle ½)", "CPU, median (middle ½)", "CPU s, ours : peer"
    );
    for row in rows.iter().filter(|row| !row.pairs.is_empty()) {
        let ratio = |of: fn(&Sample) -> f64| {
            let ratios = row.pairs.iter().map(|p| of(&p.ours) / of(&p.peer)).filter(|r| r.is_finite());
            quartiles(ratios.collect()).map_or("too little to tell".into(), |[low, mid, high]| {
                format!("{mid:.2} ({low:.2}–{high:.2})")
            })
        };
        let cpu = |of: fn(&Pair) -> f64| {
            quartiles(row.pairs.iter().map(of).collect()).map_or(0.0, |[_, median, _]| median)
        };
        text.push_str(&format!(
            "{:<40} {:>6} {:>22} {:>22} {:>20}\n",
            row.name,
            row.pairs.len(),
            ratio(|s| s.wall.as_secs_f64()),
            ratio(|s| s.cpu),
            // Where it cannot be told whose they are.
            if cpu(|p| p.ours.cpu).is_nan() {
                String::new()
            } else {
                format!("{:.2} : {:.2}", cpu(|p| p.ours.cpu), cpu(|p| p.peer.cpu))
            },
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        assert_eq!(quartiles(vec![]), None);
        assert_eq!(quartiles(vec![3.0]), Some([3.0, 3.0, 3.0]));
        assert_eq!(quartiles(vec![4.0, 1.0, 3.0, 2.0]), Some([1.75, 2.5, 3.25]));
        let hundred = (0..=100).map(f64::from).collect();
        assert_eq!(quantiles(hundred, [0.5, 0.99]), Some([50.0, 99.0]));
    }

    #[test]
    fn a_row_tells_ratios_of_pairs_and_not_of_medians() {
        let sample = |ms, cpu| Sample { wall: Duration::from_millis(ms), cpu };
        let mut row = Row::new("work");
        row.pairs.push(Pair { ours: sample(100, 1.0), peer: sample(200, 4.0) });
        row.pairs.push(Pair { ours: sample(1000, 1.0), peer: sample(2000, 4.0) });
        // Too short for the clock of the CPU: no ratio.
        row.pairs.push(Pair { ours: sample(100, 0.0), peer: sample(200, 0.0) });
        let text = table(&[row, Row::new("nothing")]);
        let line = text.lines().nth(1).expect("a row");
        assert!(line.contains("0.50 (0.50–0.50)") && line.contains("0.25 (0.25–0.25)"), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
