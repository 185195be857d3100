//! Rates as people write them.

/// What a rate looks like, for who wrote another.
pub(crate) const FORM: &str = "in a second, minute or hour, such as \"50/s\", \"200/m\" or \
                               \"1000/h\"";

/// So many in a second, written as `50/s`, `200/m` or `1000/h`; nothing when it is none of these,
/// or no rate at all.
pub(crate) fn per_second(text: &str) -> Option<f64> {
    let (count, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let rate = f64::from(count.trim().parse::<u32>().ok()?) / seconds;
    (rate > 0.0).then_some(rate)
}
