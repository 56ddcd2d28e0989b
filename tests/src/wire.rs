//! Protobuf messages without a schema: written field by field, taken apart, damaged, put together.
//!
//! A length-delimited field that reads as a message is one, so damage reaches fields at every depth: a field lost,
//! doubled, moved, renumbered, its number or bytes changed, its content replaced by another field's.

use frit_ir::testing::Rng;

/// A field's content.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A varint.
    Varint(u64),
    /// Eight bytes.
    Fixed64([u8; 8]),
    /// Four bytes.
    Fixed32([u8; 4]),
    /// A length and bytes.
    Bytes(Vec<u8>),
    /// A length and fields.
    Message(Message),
}

/// Fields in order.
pub type Message = Vec<(u64, Content)>;

/// Depth to which bytes are taken apart.
const DEPTH: usize = 6;

/// A message's fields; `None` when the bytes are none.
pub fn parse(bytes: &[u8]) -> Option<Message> {
    parse_to(bytes, DEPTH)
}

fn parse_to(mut bytes: &[u8], depth: usize) -> Option<Message> {
    let mut fields = Message::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let content = match key & 7 {
            0 => Content::Varint(varint(&mut bytes)?),
            1 => Content::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            5 => Content::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, len)?;
                match if depth > 0 && len > 1 { parse_to(inner, depth - 1) } else { None } {
                    Some(message) => Content::Message(message),
                    None => Content::Bytes(inner.to_vec()),
                }
            }
            _ => return None,
        };
        if key >> 3 == 0 {
            return None;
        }
        fields.push((key >> 3, content));
    }
    Some(fields)
}

fn take<'b>(bytes: &mut &'b [u8], len: usize) -> Option<&'b [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes of a message.
pub fn write(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, content) in message {
        let mut delimited = |bytes: &[u8]| {
            put_varint(&mut out, number << 3 | 2);
            put_varint(&mut out, bytes.len() as u64);
            out.extend(bytes);
        };
        match content {
            Content::Bytes(bytes) => delimited(bytes),
            Content::Message(message) => delimited(&write(message)),
            Content::Varint(value) => {
                put_varint(&mut out, number << 3);
                put_varint(&mut out, *value);
            }
            Content::Fixed64(bytes) => {
                put_varint(&mut out, number << 3 | 1);
                out.extend(bytes);
            }
            Content::Fixed32(bytes) => {
                put_varint(&mut out, number << 3 | 5);
                out.extend(bytes);
            }
        }
    }
    out
}

/// Numbers that break careless readers.
const NUMBERS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    17,
    127,
    1000,
    1 << 20,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
    u64::MAX - 1,
    i64::MIN as u64,
];

/// Changes one field somewhere in a message.
pub fn damage(message: &mut Message, rng: &mut Rng) {
    let Some(other) = rng.pick(message).cloned() else { return };
    let count = message.len();
    let at = rng.below(count);
    // Deep fields are many: go down more often than not.
    if let Some((_, Content::Message(inner))) = message.get_mut(at)
        && !rng.once_in(4)
    {
        return damage(inner, rng);
    }
    let choice = rng.below(10);
    match choice {
        0 => _ = message.remove(at),
        1 => message.insert(at, other),
        2 => message.swap(at, rng.below(count)),
        _ => {
            let Some((number, content)) = message.get_mut(at) else { return };
            match (choice, content) {
                (3, _) => *number = 1 + rng.below(32) as u64,
                (4, content) => *content = other.1,
                (_, Content::Varint(value)) => *value = change(*value, rng),
                (_, Content::Bytes(bytes)) => damage_bytes(bytes, rng),
                (_, Content::Fixed32(bytes)) => *bytes = (rng.bits() as u32).to_le_bytes(),
                (_, Content::Fixed64(bytes)) => *bytes = rng.bits().to_le_bytes(),
                (_, content @ Content::Message(_)) => *content = Content::Bytes(vec![0xff; rng.below(9)]),
            }
        }
    }
}

fn change(value: u64, rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1),
        2 => value ^ 1 << rng.below(64),
        _ => rng.pick(NUMBERS).copied().unwrap_or(0),
    }
}

/// Flips, cuts, doubles or splices bytes.
pub fn damage_bytes(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return bytes.push(rng.bits() as u8);
    }
    let (a, b) = (rng.below(bytes.len()), rng.below(bytes.len()));
    let (from, to) = (a.min(b), a.max(b));
    match rng.below(6) {
        0 => bytes.truncate(a),
        1 => _ = bytes.drain(from..to.min(from + 16)),
        2 => {
            let piece = bytes[from..to.min(from + 64)].to_vec();
            bytes.splice(b..b, piece);
        }
        3 => bytes[a] = rng.bits() as u8,
        _ => bytes[a] ^= 1 << rng.below(8),
    }
}
