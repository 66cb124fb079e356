//! So many bytes in each millisecond, for something that comes in pieces: a token bucket.
//!
//! What is below that on the whole never waits, however it comes: what is not used adds up for a while. A piece may be larger
//! than what is left; then the next ones wait for it, for a while at most.

/// What was not used does not add up for longer than this: a client that writes something large now and then does not
/// hold the others up.
const CREDIT_MS_MAX: u64 = 50;
/// Nobody waits longer for a piece that was larger than what was left.
const DEBT_MS_MAX: u64 = 50;

/// An allowance, or none: then all may be taken.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    bytes_per_ms: Option<u64>,
    /// What may be taken; less than nothing where more was.
    credit_bytes: i64,
    credited_ms: u64,
}

impl Allowance {
    /// From now on so much may be taken, or all. Who is slowed down begins with all the credit that there may be.
    pub(crate) fn set(&mut self, now_ms: u64, bytes_per_ms: Option<u64>) {
        if self.bytes_per_ms.is_none() {
            (self.credit_bytes, self.credited_ms) = (i64::MAX, now_ms);
        }
        self.bytes_per_ms = bytes_per_ms;
    }

    /// What may be taken now. The last piece may be longer.
    pub(crate) fn left(&mut self, now_ms: u64) -> Option<u64> {
        let bytes_per_ms = self.bytes_per_ms?;
        let passed_ms = now_ms.saturating_sub(self.credited_ms);
        self.credited_ms = self.credited_ms.max(now_ms);
        let credit_bytes = self.credit_bytes.saturating_add_unsigned(passed_ms.saturating_mul(bytes_per_ms));
        self.credit_bytes = credit_bytes.min((bytes_per_ms * CREDIT_MS_MAX) as i64);
        Some(u64::try_from(self.credit_bytes).unwrap_or(0))
    }

    /// So much was taken.
    pub(crate) fn took(&mut self, bytes: u64) {
        if let Some(bytes_per_ms) = self.bytes_per_ms {
            let debt_bytes_max = (bytes_per_ms * DEBT_MS_MAX) as i64;
            self.credit_bytes = self.credit_bytes.saturating_sub_unsigned(bytes).max(-debt_bytes_max);
        }
    }

    /// For how long, as of the last look at it, nothing may be taken.
    pub(crate) fn wait_ms(&self) -> u64 {
        match self.bytes_per_ms {
            Some(bytes_per_ms) if self.credit_bytes <= 0 => {
                self.credit_bytes.unsigned_abs() / bytes_per_ms + 1
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes_per_ms: u64) -> Allowance {
        let mut allowance = Allowance::default();
        allowance.set(0, Some(bytes_per_ms));
        allowance
    }

    #[test]
    fn so_much_is_taken_in_each_millisecond() {
        let mut allowance = Allowance::default();
        assert_eq!((allowance.left(5), allowance.wait_ms()), (None, 0));
        allowance.took(1_000_000);
        allowance.set(5, Some(1000));
        assert_eq!(allowance.left(5), Some(1000 * CREDIT_MS_MAX));
        allowance.took(1000 * CREDIT_MS_MAX);
        let mut taken = 0;
        for now_ms in 5..1005 {
            while allowance.left(now_ms).is_some_and(|left| left > 0) {
                allowance.took(300);
                taken += 300;
            }
        }
        assert!((999_000..=1_000_000).contains(&taken), "{taken}");
        allowance.set(1005, None);
        assert_eq!((allowance.left(1005), allowance.wait_ms()), (None, 0));
    }

    #[test]
    fn who_takes_less_never_waits_however_it_comes() {
        let mut allowance = of(1000);
        for now_ms in 0..10_000 {
            assert!(allowance.left(now_ms).is_some_and(|left| left > 0), "after {now_ms} ms");
            allowance.took(100);
            if now_ms % 50 == 0 {
                allowance.took(44_000);
            }
        }
    }

    #[test]
    fn a_large_piece_is_taken_and_the_next_ones_wait_for_it() {
        let mut allowance = of(1000);
        assert_eq!(allowance.left(0), Some(1000 * CREDIT_MS_MAX));
        allowance.took(1000 * (CREDIT_MS_MAX + 20));
        assert_eq!(allowance.wait_ms(), 21);
        assert_eq!((allowance.left(20), allowance.left(21)), (Some(0), Some(1000)));
        // But not for as long as it takes, however large it was.
        allowance.took(16_000_000);
        assert_eq!(allowance.wait_ms(), DEBT_MS_MAX + 1);
    }

    #[test]
    fn what_is_not_used_is_lost() {
        assert_eq!(of(1000).left(1_000_000), Some(1000 * CREDIT_MS_MAX));
        assert_eq!(of(u64::MAX / CREDIT_MS_MAX / 4).left(u64::MAX).map(|left| left > 0), Some(true));
    }
}
