//! One metric's values over the rounds as a histogram: for what is asked of the slowest runs too.
//!
//! Owns the histogram. Called by the report and the plots for metrics that ask for it. Rule: one
//! value a run, as it was measured, to three digits: a run that failed has none, and is told beside
//! it.

use hdrhistogram::Histogram;

/// What a table shows of it.
pub const SHOWN: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];
/// Counts of a histogram are whole: it holds millionths of the metric's unit (s: microseconds).
const PER_UNIT: f64 = 1e6;
/// Digits that count.
const DIGITS: u8 = 3;

/// The runs of one subject, one value each.
#[derive(Clone, Debug)]
pub struct Percentiles(Histogram<u64>);

impl Percentiles {
    /// None without values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Percentiles> {
        let mut histogram = Histogram::new(DIGITS).ok()?;
        for value in values {
            histogram.record((value * PER_UNIT).round() as u64).ok()?;
        }
        (!histogram.is_empty()).then_some(Percentiles(histogram))
    }

    /// The value that the part `quantile` of all runs did not exceed, in the metric's unit.
    pub fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / PER_UNIT
    }

    /// How many runs.
    pub fn runs(&self) -> u64 {
        self.0.len()
    }

    /// All that is in it: values in the metric's unit, and how many runs had each.
    pub fn recorded(&self) -> Vec<(f64, u64)> {
        let each = self.0.iter_recorded();
        each.map(|v| (v.value_iterated_to() as f64 / PER_UNIT, v.count_at_value())).collect()
    }

    /// Points (1 / (1 - part of the runs that were faster), value), one a run: the last is "1 run
    /// in all of them".
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let runs = self.runs() as f64;
        let each = (0..self.runs()).map(|n| n as f64);
        each.map(|n| (runs / (runs - n), self.at((n + 0.5) / runs))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 runs of 1 to 20 ms.
    fn twenty() -> Percentiles {
        Percentiles::of((1..=20).map(|n| f64::from(n) / 1e3)).expect("values")
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b * 1e-3
    }

    #[test]
    fn percentiles_of_twenty_runs() {
        let shown = SHOWN.map(|(_, q)| twenty().at(q));
        for (got, wanted) in shown.into_iter().zip([0.010, 0.018, 0.020, 0.020]) {
            assert!(near(got, wanted), "{shown:?}");
        }
        assert_eq!(twenty().runs(), 20);
    }

    #[test]
    fn every_run_is_recorded_and_on_the_curve() {
        let p = Percentiles::of([0.5, 0.016, 0.5, 70.0]).expect("values");
        let recorded = p.recorded();
        assert_eq!(recorded.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 2, 1]);
        assert!(recorded.iter().zip([0.016, 0.5, 70.0]).all(|((v, _), w)| near(*v, w)));
        let (x, y): (Vec<_>, Vec<_>) = p.curve().into_iter().unzip();
        assert_eq!(x, [1.0, 4.0 / 3.0, 2.0, 4.0]);
        assert!(y.iter().zip([0.016, 0.5, 0.5, 70.0]).all(|(v, w)| near(*v, w)), "{y:?}");
    }

    #[test]
    fn no_runs_no_percentiles() {
        assert!(Percentiles::of([]).is_none());
        assert_eq!(Percentiles::of([0.25]).map(|p| p.curve().len()), Some(1));
    }
}
