//! Small arithmetic, the same on every machine: plain IEEE operations, no libm where it is hot.

/// Returns e^-x for x ≥ 0 within 2e-6; 0 from x = 60 on.
///
/// 2^-n by exponent bits, the rest by a polynomial (Taylor of 2^-f on 0..1, degree 7): about 2 ns, and
/// independent of the platform's libm, which decides bits of the results.
pub(crate) fn exp_neg(x: f32) -> f32 {
    let [result] = exp_neg_each([x]);
    result
}

/// Returns [`exp_neg`] of each: the same operations on all lanes and no branch, so that four take as long as one.
#[inline]
pub(crate) fn exp_neg_each<const N: usize>(x: [f32; N]) -> [f32; N] {
    let mut out = [0.0; N];
    for (out, x) in out.iter_mut().zip(x) {
        let y = x.min(60.0) * std::f32::consts::LOG2_E;
        let n = y as i32; // 0..=86
        let f = (y - n as f32) * std::f32::consts::LN_2;
        let p = 1.0
            - f * (1.0
                - f * (1.0 / 2.0
                    - f * (1.0 / 6.0
                        - f * (1.0 / 24.0 - f * (1.0 / 120.0 - f * (1.0 / 720.0 - f / 5040.0))))));
        let scaled = p * f32::from_bits(((127 - n) << 23) as u32);
        *out = if x >= 60.0 { 0.0 } else { scaled };
    }
    out
}

/// Returns how far `x` is from `low` (0) to `high` (1), clamped.
pub(crate) fn ramp(x: f64, low: f64, high: f64) -> f64 {
    ((x - low) / (high - low)).clamp(0.0, 1.0)
}

/// Returns ln(p / (1 − p)).
pub(crate) fn logit(p: f64) -> f64 {
    (p / (1.0 - p)).ln()
}

/// Returns the probability whose logit is `x`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Returns the lower end of Wilson's 90 % interval for `hits` of `n` (one-sided 95 %).
pub(crate) fn wilson_low(hits: f64, n: f64) -> f64 {
    if n <= 0.0 {
        return 0.0;
    }
    let (z2, p) = (1.645 * 1.645, (hits / n).clamp(0.0, 1.0));
    let centre = p + z2 / (2.0 * n);
    let half = (z2 * (p * (1.0 - p) / n + z2 / (4.0 * n * n))).sqrt();
    ((centre - half) / (1.0 + z2 / n)).max(0.0)
}

/// Mixes 128 bits into 64 (folded multiply); not seeded: for sketches, whose results must repeat.
pub(crate) fn mix(key: u128) -> u64 {
    let fold = |a: u64, b: u64| {
        let m = u128::from(a) * u128::from(b);
        (m as u64) ^ ((m >> 64) as u64)
    };
    let x = fold((key as u64) ^ 0x9e37_79b9_7f4a_7c15, ((key >> 64) as u64) ^ 0xd6e8_feb8_6659_fd93);
    fold(x ^ 0xa076_1d64_78bd_642f, 0xe703_7ed1_a0b4_28db)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_neg_is_close_to_exp() {
        for i in 0..60_000 {
            let x = i as f32 / 1000.0;
            let want = (-f64::from(x)).exp();
            let have = f64::from(exp_neg(x));
            assert!((have - want).abs() <= want * 2e-5 + 1e-30, "{x}: {have} {want}");
        }
        assert_eq!(exp_neg(0.0), 1.0);
        assert_eq!(exp_neg(60.0), 0.0);
    }

    #[test]
    fn wilson_is_below_the_ratio() {
        assert_eq!(wilson_low(0.0, 0.0), 0.0);
        assert!((0.7..0.9).contains(&wilson_low(9.9, 10.0)));
        assert!(wilson_low(950.0, 1000.0) > 0.93);
        assert!(wilson_low(0.0, 50.0) < 1e-9);
    }
}
