//! What was measured: samples, their median and spread, and how a figure stands to its baseline. Whole numbers only.

use serde::{Serialize, Serializer};

/// Samples of one figure, one a repetition.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<u64>);

impl Samples {
    pub(super) fn add(&mut self, sample: u64) {
        self.0.push(sample);
    }

    /// The middle one; of an even number the lower of the two.
    pub(super) fn median(&self) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
    }

    pub(super) fn min(&self) -> u64 {
        self.0.iter().min().copied().unwrap_or(0)
    }

    pub(super) fn max(&self) -> u64 {
        self.0.iter().max().copied().unwrap_or(0)
    }

    /// Each sample over the baseline's of the same repetition.
    pub(super) fn over(&self, baseline: &Self) -> Ratios {
        let pairs = self.0.iter().zip(&baseline.0);
        Ratios(Self(pairs.map(|(value, base)| thousandths(*value, *base)).collect()))
    }
}

impl FromIterator<u64> for Samples {
    fn from_iter<I: IntoIterator<Item = u64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View<'a> {
            median: u64,
            min: u64,
            max: u64,
            samples: &'a [u64],
        }
        View { median: self.median(), min: self.min(), max: self.max(), samples: &self.0 }.serialize(serializer)
    }
}

/// Ratios in thousandths, one a repetition: figure and baseline alternate, so each pair met about the same machine.
#[derive(Clone, Debug)]
pub(super) struct Ratios(Samples);

impl Ratios {
    /// The middle one, in thousandths.
    pub(super) fn median(&self) -> u64 {
        self.0.median()
    }

    pub(super) fn text(&self) -> String {
        format!("{} ({}–{})", decimal(self.0.median()), decimal(self.0.min()), decimal(self.0.max()))
    }
}

impl Serialize for Ratios {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// A fraction in thousandths.
pub(super) fn thousandths(value: u64, base: u64) -> u64 {
    value.saturating_mul(1000).checked_div(base).unwrap_or(0)
}

/// Thousandths as people write them: `0.754`.
pub(super) fn decimal(thousandths: u64) -> String {
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// How often something happened in a second.
pub(super) fn per_second(count: u64, time: std::time::Duration) -> u64 {
    let nanos = u128::from(count) * 1_000_000_000;
    u64::try_from(nanos / time.as_nanos().max(1)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_median_is_a_sample_and_ratios_are_of_pairs() {
        let figure: Samples = [30, 10, 20, 40].into_iter().collect();
        let baseline: Samples = [60, 10, 10, 160].into_iter().collect();
        assert_eq!((figure.median(), figure.min(), figure.max()), (20, 10, 40));
        assert_eq!(figure.over(&baseline).text(), "0.500 (0.250–2.000)");
        assert_eq!(Samples::default().median(), 0);
        assert_eq!(per_second(3, Duration::from_millis(1500)), 2);
    }
}
