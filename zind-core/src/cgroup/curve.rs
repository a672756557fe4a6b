//! The curve from shares of version 1 to a weight of version 2, in plain arithmetic: for two functions the command would load all of
//! the mathematics library at each start.
#![forbid(unsafe_code)]

/// A weight for 2 to 262144 shares, as runc and crun have it.
pub(super) fn weight(shares: u64) -> u64 {
    let l = log2(shares as f64);
    power_of_ten((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
}

/// Of an ordinary number above 0.
fn log2(x: f64) -> f64 {
    const FRACTION: u32 = f64::MANTISSA_DIGITS - 1;
    const BIAS: u64 = 1023;
    let bits = x.to_bits();
    let mut exponent = (bits >> FRACTION) as i32 - BIAS as i32;
    let mut part = f64::from_bits(bits & ((1 << FRACTION) - 1) | BIAS << FRACTION);
    if part > std::f64::consts::SQRT_2 {
        part /= 2.0;
        exponent += 1;
    }
    // ln(x) is twice the series of the odd powers of this, each divided by its exponent.
    let s = (part - 1.0) / (part + 1.0);
    let sum = (0..16).rev().fold(0.0, |sum, n| sum * s * s + 1.0 / f64::from(2 * n + 1));
    f64::from(exponent) + sum * s * 2.0 * std::f64::consts::LOG2_E
}

/// Of a small number that is not negative.
fn power_of_ten(y: f64) -> f64 {
    let whole = y as i32;
    let x = (y - f64::from(whole)) * std::f64::consts::LN_10;
    let of_fraction = (1..32).rev().fold(1.0, |sum, n| 1.0 + sum * x / f64::from(n));
    (0..whole).fold(of_fraction, |product, _| product * 10.0)
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn each_number_of_shares_has_the_weight_of_the_formula() {
        for shares in 2u64..=262_144 {
            let l = (shares as f64).log2();
            let formula = 10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64;
            assert_eq!(weight(shares), formula, "{shares}");
        }
        assert_eq!([2, 1024, 262_144].map(weight), [1, 100, 10_000]);
    }
}
