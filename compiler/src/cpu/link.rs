//! A linker of one page: functions into one block of position-independent bytes.
//!
//! In: compiled functions, the first for the phases and the rest leaves, with calls to each other by number. Out: one
//! block, each function at a multiple of [`ALIGNMENT`], calls patched relative to where they stand. Anything but such a
//! call is an internal error: generated code refers to nothing outside of itself.

use cranelift_codegen::binemit::Reloc;

use super::error::Refusal;
use super::exec::ALIGNMENT;

/// A call that waits for its target's place.
pub(super) struct Call {
    /// Where its bytes are in the function.
    pub(super) offset: usize,
    /// How they are written.
    pub(super) kind: Reloc,
    /// Which function it calls.
    pub(super) target: usize,
    /// Added to the distance.
    pub(super) addend: i64,
}

/// A compiled function.
pub(super) struct Piece {
    /// Its code and the constants behind it.
    pub(super) bytes: Vec<u8>,
    /// Its calls.
    pub(super) calls: Vec<Call>,
}

/// The block, and where each function begins.
pub(super) fn link(pieces: &[Piece]) -> Result<(Vec<u8>, Vec<usize>), Refusal> {
    let mut bytes = Vec::with_capacity(pieces.iter().map(|p| p.bytes.len().next_multiple_of(ALIGNMENT)).sum());
    let mut starts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        starts.push(bytes.len());
        bytes.extend_from_slice(&piece.bytes);
    }
    for (piece, start) in pieces.iter().zip(&starts) {
        for call in &piece.calls {
            let place = start + call.offset;
            let target =
                starts.get(call.target).ok_or_else(|| internal(format!("a call of function {}", call.target)))?;
            let distance = *target as i64 + call.addend - place as i64;
            let slot = bytes.get_mut(place..).and_then(|rest| rest.first_chunk_mut::<4>());
            let slot = slot.ok_or_else(|| internal(format!("a call at {place}, outside of the code")))?;
            *slot = patched(call.kind, *slot, distance)?;
        }
    }
    Ok((bytes, starts))
}

/// The four bytes of a call instruction that hold its distance.
fn patched(kind: Reloc, old: [u8; 4], distance: i64) -> Result<[u8; 4], Refusal> {
    let far = |_| internal(format!("a call over {distance} bytes"));
    match kind {
        Reloc::X86CallPCRel4 => Ok(i32::try_from(distance).map_err(far)?.to_le_bytes()),
        Reloc::Arm64Call => {
            // 26 bits, in words.
            let words = i32::try_from(distance >> 2).map_err(far)?;
            if !(-(1 << 25)..1 << 25).contains(&words) || distance & 3 != 0 {
                return Err(internal(format!("a call over {distance} bytes")));
            }
            Ok((u32::from_le_bytes(old) & 0xfc00_0000 | (words as u32 & 0x03ff_ffff)).to_le_bytes())
        }
        other => Err(internal(format!("a relocation of kind {other:?}"))),
    }
}

fn internal(what: String) -> Refusal {
    Refusal::Internal(format!("the linker met {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(len: usize, calls: Vec<Call>) -> Piece {
        Piece { bytes: vec![0x94; len], calls }
    }

    #[test]
    fn calls_are_patched_in_both_directions() {
        let call = |target| Call { offset: 4, kind: Reloc::X86CallPCRel4, target, addend: -4 };
        let (bytes, starts) = link(&[piece(70, vec![call(1)]), piece(8, vec![call(0)])]).unwrap();
        assert_eq!(starts, [0, 128]);
        assert_eq!(bytes[4..8], 120i32.to_le_bytes());
        assert_eq!(bytes[132..136], (-136i32).to_le_bytes());
    }

    #[test]
    fn arm_calls_keep_their_opcode() {
        let call = Call { offset: 0, kind: Reloc::Arm64Call, target: 0, addend: 0 };
        let (bytes, _) =
            link(&[piece(4, Vec::new()), Piece { bytes: vec![0, 0, 0, 0x94], calls: vec![call] }]).unwrap();
        assert_eq!(u32::from_le_bytes(bytes[64..68].try_into().unwrap()), 0x97ff_fff0);
    }

    #[test]
    fn anything_else_is_an_internal_error() {
        let calls = vec![Call { offset: 0, kind: Reloc::Abs8, target: 0, addend: 0 }];
        assert!(matches!(link(&[piece(16, calls)]), Err(Refusal::Internal(_))));
        let calls = vec![Call { offset: 14, kind: Reloc::X86CallPCRel4, target: 0, addend: 0 }];
        assert!(matches!(link(&[piece(16, calls)]), Err(Refusal::Internal(_))));
    }
}
