//! QUIC transport parameters as they are encoded (RFC 9000 section 18).

use serde_json::{Value, json};
use wireloom::proto::varint;

use super::report::Parameter;

enum Kind {
    Number,
    Flag,
    Bytes,
}

/// RFC 9000 section 18.2, RFC 9221 section 3, RFC 9287 section 3, RFC 9368 section 3 and two drafts.
const fn known(id: u64) -> Option<(&'static str, Kind)> {
    Some(match id {
        0x00 => ("original_destination_connection_id", Kind::Bytes),
        0x01 => ("max_idle_timeout", Kind::Number),
        0x02 => ("stateless_reset_token", Kind::Bytes),
        0x03 => ("max_udp_payload_size", Kind::Number),
        0x04 => ("initial_max_data", Kind::Number),
        0x05 => ("initial_max_stream_data_bidi_local", Kind::Number),
        0x06 => ("initial_max_stream_data_bidi_remote", Kind::Number),
        0x07 => ("initial_max_stream_data_uni", Kind::Number),
        0x08 => ("initial_max_streams_bidi", Kind::Number),
        0x09 => ("initial_max_streams_uni", Kind::Number),
        0x0a => ("ack_delay_exponent", Kind::Number),
        0x0b => ("max_ack_delay", Kind::Number),
        0x0c => ("disable_active_migration", Kind::Flag),
        0x0d => ("preferred_address", Kind::Bytes),
        0x0e => ("active_connection_id_limit", Kind::Number),
        0x0f => ("initial_source_connection_id", Kind::Bytes),
        0x10 => ("retry_source_connection_id", Kind::Bytes),
        0x11 => ("version_information", Kind::Bytes),
        0x20 => ("max_datagram_frame_size", Kind::Number),
        0x2ab2 => ("grease_quic_bit", Kind::Flag),
        0xff04_de1b => ("min_ack_delay", Kind::Number),
        0x17_f758_6d2c_b571 => ("reset_stream_at", Kind::Flag),
        _ => return None,
    })
}

/// Whether a parameter exists only to exercise the rule that unknown ones are ignored (RFC 9000 section 18.1).
const fn is_grease(id: u64) -> bool {
    id >= 27 && (id - 27).is_multiple_of(31)
}

/// Reads as far as the encoding is right; what follows damage is left out.
pub(super) fn decode(mut input: &[u8]) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    while let Some((id, len, value)) = next(&mut input) {
        if is_grease(id) {
            continue;
        }
        let (name, kind) = known(id).map_or((None, Kind::Bytes), |(name, kind)| (Some(name), kind));
        let value = match kind {
            Kind::Number => varint::decode(value).map_or(Value::Null, |(number, _)| json!(number)),
            Kind::Flag => json!(len == 0),
            Kind::Bytes => json!(value.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        };
        parameters.push(Parameter {
            id: format!("{id:#x}"),
            name,
            value,
        });
    }
    parameters
}

fn next<'a>(input: &mut &'a [u8]) -> Option<(u64, usize, &'a [u8])> {
    let (id, taken) = varint::decode(input)?;
    let (len, more) = varint::decode(&input[taken..])?;
    let rest = &input[taken + more..];
    let (value, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *input = rest;
    Some((id, value.len(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_named_and_valued() {
        // max_idle_timeout 30000, disable_active_migration, one of GREASE, an unknown one.
        let bytes = [1, 4, 0x80, 0, 0x75, 0x30, 0x0c, 0, 27, 1, 9, 0x3f, 2, 0xab, 0xcd];
        let list = decode(&bytes);
        let shown: Vec<_> = list.iter().map(|p| (p.id.as_str(), p.name, p.value.clone())).collect();
        assert_eq!(
            shown,
            [
                ("0x1", Some("max_idle_timeout"), json!(30000)),
                ("0xc", Some("disable_active_migration"), json!(true)),
                ("0x3f", None, json!("abcd")),
            ]
        );
    }

    #[test]
    fn damage_ends_the_list() {
        for bytes in [&[1, 4, 0x80][..], &[1], &[0xc0], &[]] {
            assert!(decode(bytes).is_empty());
        }
    }
}
