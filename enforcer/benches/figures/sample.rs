//! Numbers out of noisy samples.

/// A value with the range that it is likely to lie in.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    /// The median.
    pub value: f64,
    /// Lower end of the 95 % range of the median.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
}

/// The value below which `part` (0 to 1) of the samples lie. NaN when there are none.
pub fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    of_sorted(&sorted, part)
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sample counts are small"
)]
fn of_sorted(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = part.clamp(0.0, 1.0) * last as f64;
    let below = sorted[place.floor() as usize];
    let above = sorted[place.ceil() as usize];
    below + (above - below) * place.fract()
}

/// The median.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The median with its 95 % range, by order statistics: no shape of the samples is assumed.
pub fn estimate(samples: &[f64]) -> Estimate {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "sample counts are small")]
    let spread = 0.98 / (sorted.len().max(1) as f64).sqrt();
    Estimate {
        value: of_sorted(&sorted, 0.5),
        low: of_sorted(&sorted, 0.5 - spread),
        high: of_sorted(&sorted, 0.5 + spread),
    }
}

/// Samples of two ways to do one thing, taken turn by turn.
#[derive(Debug, Default)]
pub struct Pairs {
    /// Every sample of the bare way, ns.
    pub bare: Vec<f64>,
    /// Every sample of the other way, ns.
    pub other: Vec<f64>,
    ratios: Vec<f64>,
    differences: Vec<f64>,
}

impl Pairs {
    /// Adds one turn of each.
    pub fn add(&mut self, bare: &[f64], other: &[f64]) {
        let (before, after) = (median(bare), median(other));
        self.ratios.push(after / before);
        self.differences.push(after - before);
        self.bare.extend(bare);
        self.other.extend(other);
    }

    /// Median of the pairs' ratios (other / bare).
    pub fn ratio(&self) -> Estimate {
        estimate(&self.ratios)
    }

    /// Median of the pairs' differences (other - bare), ns.
    pub fn difference(&self) -> Estimate {
        estimate(&self.differences)
    }

    /// Turns of each.
    pub fn turns(&self) -> usize {
        self.ratios.len()
    }
}

/// Runs `turns` turns of both, every other one in the opposite order: whatever drifts hits both alike.
pub fn interleave(
    turns: usize,
    mut bare: impl FnMut() -> anyhow::Result<Vec<f64>>,
    mut other: impl FnMut() -> anyhow::Result<Vec<f64>>,
) -> anyhow::Result<Pairs> {
    let mut pairs = Pairs::default();
    for turn in 0..turns {
        let (first, second);
        if turn % 2 == 0 {
            first = bare()?;
            second = other()?;
        } else {
            second = other()?;
            first = bare()?;
        }
        pairs.add(&first, &second);
    }
    Ok(pairs)
}
