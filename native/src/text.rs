//! Numbers, dates and times from text, exactly as `lodestream.formats` reads them; None for all that is not plainly one.

/// Digits that a whole number of 64 bits can always have.
const DIGITS_MAX: usize = 18;
/// Longer fractions are left to the exact decoder.
const NUMBER_MAX: usize = 300;
const DAY_US: i64 = 86_400_000_000;

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The number that `text` begins with, as JSON writes numbers.
#[derive(Default)]
pub struct Number {
    /// Bytes it takes.
    pub size: usize,
    /// All digits before the exponent as one whole number, when there are at most `DIGITS_MAX` that count.
    mantissa: Option<u64>,
    negative: bool,
    digits: usize,
    fraction: usize,
    exponent: bool,
}

impl Number {
    /// Read it; None when there is none.
    pub fn read(text: &[u8]) -> Option<Number> {
        let mut number = Number {
            negative: text.first() == Some(&b'-'),
            ..Number::default()
        };
        let mut at = usize::from(number.negative);
        let mut mantissa = 0u64;
        let whole = at;
        while let Some(digit) = text
            .get(at)
            .map(|byte| byte.wrapping_sub(b'0'))
            .filter(|digit| *digit <= 9)
        {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            at += 1;
        }
        number.digits = at - whole;
        if number.digits == 0 || number.digits > 1 && text[whole] == b'0' {
            return None;
        }
        if text.get(at) == Some(&b'.') {
            at += 1;
            let start = at;
            while let Some(digit) = text
                .get(at)
                .map(|byte| byte.wrapping_sub(b'0'))
                .filter(|digit| *digit <= 9)
            {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
                at += 1;
            }
            number.fraction = at - start;
            if number.fraction == 0 {
                return None;
            }
            number.digits += number.fraction;
        }
        if matches!(text.get(at), Some(b'e' | b'E')) {
            at += 1;
            at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
            let start = at;
            while text.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            if at == start {
                return None;
            }
            number.exponent = true;
        }
        number.mantissa = (number.digits <= DIGITS_MAX).then_some(mantissa);
        number.size = at;
        Some(number)
    }

    /// As a whole number, which has no point and no exponent.
    pub fn whole(&self) -> Option<i64> {
        if self.fraction > 0 || self.exponent {
            return None;
        }
        let value = self.mantissa? as i64;
        Some(if self.negative { -value } else { value })
    }

    /// As the unscaled value of a decimal of `precision` and `scale`; `text` is what was read.
    pub fn decimal(&self, text: &[u8], precision: u32, scale: u32) -> Option<i128> {
        let missing = (scale as usize).checked_sub(self.fraction)?;
        match self.mantissa {
            Some(mantissa) if !self.exponent && precision <= 18 && self.digits + missing <= 18 => {
                let value = mantissa as i64 * WHOLE_POWERS[missing];
                let value = (value < WHOLE_POWERS[precision as usize]).then_some(value)?;
                Some(i128::from(if self.negative { -value } else { value }))
            }
            _ => decimal(&text[..self.size], precision, scale),
        }
    }

    /// As the nearest double; `text` is what was read. Minus zero written as a whole number has no sign.
    pub fn double(&self, text: &[u8]) -> Option<f64> {
        if let Some(mantissa) = self.mantissa.filter(|m| *m < 1 << 53 && !self.exponent) {
            let value = mantissa as f64 / POWERS[self.fraction];
            return Some(if self.negative && (mantissa > 0 || self.fraction > 0) {
                -value
            } else {
                value
            });
        }
        let text = text.get(..self.size).filter(|text| text.len() <= NUMBER_MAX)?;
        let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        (value.is_finite() && (value != 0.0 || self.fraction > 0 || self.exponent)).then_some(value)
    }
}

const WHOLE_POWERS: [i64; 19] = {
    let mut powers = [1; 19];
    let mut i = 1;
    while i < 19 {
        powers[i] = powers[i - 1] * 10;
        i += 1;
    }
    powers
};

/// The unscaled value of a decimal of `precision` and `scale` that all of `text` is: digits, a sign, a point.
pub fn decimal(text: &[u8], precision: u32, scale: u32) -> Option<i128> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &digits[..0]),
    };
    let missing = (scale as usize).checked_sub(fraction.len())?;
    if whole.is_empty() || point.is_some() && fraction.is_empty() || whole.len() + scale as usize > 38 {
        return None;
    }
    let mut value = 0i128;
    if whole.len() + fraction.len() <= DIGITS_MAX {
        let mut small = 0i64;
        for byte in whole.iter().chain(fraction) {
            small = small * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        value = i128::from(small);
    } else {
        for byte in whole.iter().chain(fraction) {
            value = value * 10 + i128::from(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
    }
    value *= 10i128.pow(missing as u32);
    if value >= 10i128.pow(precision) {
        return None;
    }
    Some(if text.len() > digits.len() { -value } else { value })
}

fn number(text: &[u8]) -> Option<i64> {
    let mut value = 0;
    for byte in text {
        value = value * 10 + i64::from(byte.is_ascii_digit().then(|| byte - b'0')?);
    }
    Some(value)
}

/// Two digits.
fn two(a: u8, b: u8) -> Option<u32> {
    let (a, b) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
    (a <= 9 && b <= 9).then_some(u32::from(a) * 10 + u32::from(b))
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, years 1 to 9999.
pub fn date(text: &[u8]) -> Option<i64> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else {
        return None;
    };
    let (year, month, day) = (two(y1, y2)? * 100 + two(y3, y4)?, two(m1, m2)?, two(d1, d2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1 || day < 1 || day > longest {
        return None;
    }
    // Count from March, so that the leap day is a year's last; 719,468 days lie between 0000-03-01 and 1970.
    let march_year = year - u32::from(month <= 2);
    let (era, year_of_era) = (march_year / 400, march_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(i64::from(era * 146_097 + day_of_era) - 719_468)
}

/// Microseconds since 1970 UTC of `YYYY-MM-DD(T| )HH:MM:SS[.f][Z|±HH[:]MM]`; without a zone it is UTC.
pub fn timestamp(text: &[u8]) -> Option<i64> {
    let (day, time) = text.split_at_checked(10)?;
    let &[b'T' | b' ', h1, h2, b':', m1, m2, b':', s1, s2, ref rest @ ..] = time else {
        return None;
    };
    let days = date(day)?;
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut micros = days * DAY_US + i64::from(hour * 3600 + minute * 60 + second) * 1_000_000;
    let mut rest = rest;
    if let Some(after) = rest.strip_prefix(b".") {
        let size = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&size) || after[..size].iter().skip(6).any(|byte| *byte != b'0') {
            return None;
        }
        let kept = size.min(6);
        micros += number(&after[..kept])? * WHOLE_POWERS[6 - kept];
        rest = &after[size..];
    }
    match rest {
        [] | [b'Z'] => Some(micros),
        [sign @ (b'+' | b'-'), h1, h2, minutes @ ..] => {
            let minutes = minutes.strip_prefix(b":").unwrap_or(minutes);
            let (hours, minutes) = (number(&[*h1, *h2])?, (minutes.len() == 2).then(|| number(minutes))??);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 3600 + minutes * 60) * 1_000_000;
            Some(if *sign == b'-' {
                micros + offset
            } else {
                micros - offset
            })
        }
        _ => None,
    }
}

/// Decode base64 with its padding to the end of `out`; None when it is not exactly that.
pub fn base64(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let (mut bits, mut count) = (0u32, 0);
    for byte in &text[..text.len() - padding] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (bits == 0).then_some(())
}
