//! Machine code in executable memory, and the one place that jumps into it.
//!
//! In: the bytes of a [`KernelCode`](super::abi::KernelCode), or of many, one after another at multiples of
//! [`ALIGNMENT`]. They lie in pages that are first written and then made executable, never both at once.
#![allow(unsafe_code, reason = "calling generated code is a jump to an address that the compiler knows nothing of")]

use std::io;

use memmap2::{Mmap, MmapMut};

use super::abi::KernelArgs;

/// Code starts at multiples of this many bytes: its vector constants are aligned relative to its start.
pub const ALIGNMENT: usize = 64;

/// A phase of a kernel, as [`super::abi`] describes it.
type PhaseFn = unsafe extern "C" fn(*const KernelArgs, i64, i64);

/// Executable memory.
#[derive(Debug)]
pub struct ExecutableCode {
    map: Mmap,
}

impl ExecutableCode {
    /// Copies machine code to executable memory. Fails when the system gives no such pages.
    pub fn new(code: &[u8]) -> io::Result<Self> {
        // The system refuses maps of no bytes.
        let mut map = MmapMut::map_anon(code.len().max(1))?;
        if let Some(place) = map.get_mut(..code.len()) {
            place.copy_from_slice(code);
        }
        let map = map.make_exec()?;
        cache::synchronize(&map);
        Ok(ExecutableCode { map })
    }

    /// Bytes of memory.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Where a byte of the code lies.
    pub fn address(&self, offset: usize) -> Option<*const u8> {
        self.map.get(offset..).filter(|rest| !rest.is_empty()).map(<[u8]>::as_ptr)
    }

    /// Runs the phase at `entry` for outer = begin .. end. False when `entry` lies outside of the code.
    ///
    /// # Safety
    /// `entry` is one that the code generator gave for these bytes (shifted by where they begin in this memory), and
    /// `args` keeps the contract of [`super::abi`]: live buffers as large as the kernel says, extents that their indices
    /// fit, scratch memory of the phase's size, the addresses of [`super::functions::table`].
    pub unsafe fn run(&self, entry: usize, args: &KernelArgs, begin: i64, end: i64) -> bool {
        let Some(address) = self.address(entry) else { return false };
        // SAFETY: the caller says that a phase function starts here.
        let phase = unsafe { std::mem::transmute::<*const u8, PhaseFn>(address) };
        // SAFETY: the caller keeps the contract of its arguments.
        unsafe { phase(args, begin, end) };
        true
    }
}

/// Instruction caches that do not watch stores.
mod cache {
    /// x86 keeps them coherent by itself.
    #[cfg(not(target_arch = "aarch64"))]
    pub(super) fn synchronize(_code: &[u8]) {}

    /// Cleans the data cache to the point of unification, drops stale instructions, waits for both: the sequence that
    /// the Arm architecture reference manual prescribes for self-modifying code, with the smallest possible line size.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn synchronize(code: &[u8]) {
        const LINE: usize = 16;
        let lines = || (0..code.len()).step_by(LINE).map(|i| code.as_ptr().wrapping_add(i));
        for line in lines() {
            // SAFETY: cleaning a cache line changes no memory; the address is inside `code`.
            unsafe { std::arch::asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: barriers.
        unsafe { std::arch::asm!("dsb ish", options(nostack, preserves_flags)) };
        for line in lines() {
            // SAFETY: as above.
            unsafe { std::arch::asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: barriers.
        unsafe { std::arch::asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    }
}
