//! JSON byte for byte as Go's `encoding/json` writes it: members sorted, `<`, `>`, `&` escaped, numbers in Go's notation.

use std::fmt::Write;

use serde_json::Value;

use super::SessionInfo;

/// A string with its quotes.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_string(&mut out, text);
    out
}

/// An object at the end of `out`.
pub(super) fn object(out: &mut String, members: &SessionInfo) {
    push_members(out, members.iter());
}

fn push_members<'a>(out: &mut String, members: impl Iterator<Item = (&'a String, &'a Value)>) {
    out.push('{');
    for (i, (name, value)) in members.enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_string(out, name);
        out.push(':');
        push(out, value);
    }
    out.push('}');
}

fn push(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => push_float(out, float),
            None => out.push_str(&number.to_string()),
        },
        Value::String(text) => push_string(out, text),
        Value::Array(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                push(out, value);
            }
            out.push(']');
        }
        Value::Object(members) => {
            // Not sorted where serde_json keeps the order of insertion, as other crates may have it do.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            push_members(out, sorted.into_iter());
        }
    }
}

fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
}

/// The shortest digits; an exponent only below 1e-6 and from 1e21.
fn push_float(out: &mut String, float: f64) {
    let magnitude = float.abs();
    let plain = magnitude == 0.0 || (1e-6..1e21).contains(&magnitude);
    let digits = if plain { float.to_string() } else { format!("{float:e}") };
    match digits.split_once('e') {
        Some((mantissa, exponent)) if !exponent.starts_with('-') => {
            out.push_str(mantissa);
            out.push_str("e+");
            out.push_str(exponent);
        }
        _ => out.push_str(&digits),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        let mut out = String::new();
        push(&mut out, value);
        out
    }

    /// Each is what `json.Marshal` answers for the value.
    #[test]
    fn as_go_writes_it() {
        for (value, expected) in [
            (
                json!({"b": 1, "a": {"d": null, "c": [true, false]}}),
                r#"{"a":{"c":[true,false],"d":null},"b":1}"#,
            ),
            (
                json!("<&>\u{2028}\"\\\n\u{1}é😀"),
                "\"\\u003c\\u0026\\u003e\\u2028\\\"\\\\\\n\\u0001é😀\"",
            ),
            (json!(1.0), "1"),
            (json!(0.5), "0.5"),
            (json!(1e20), "100000000000000000000"),
            (json!(1e21), "1e+21"),
            (json!(1.5e300), "1.5e+300"),
            (json!(1e-6), "0.000001"),
            (json!(1e-7), "1e-7"),
            (json!(-2.5), "-2.5"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!(i64::MIN), "-9223372036854775808"),
            (json!([]), "[]"),
            (json!({}), "{}"),
        ] {
            assert_eq!(text(&value), expected);
            let back: Value = serde_json::from_str(expected).expect("JSON");
            assert_eq!(text(&back), expected);
        }
    }
}
