//! The back end of vector loops that stands on Cranelift.

use super::super::code::CodeOptions;

pub(crate) struct ClifBackend;

impl ClifBackend {
    pub(crate) fn new(_options: &CodeOptions) -> Self {
        ClifBackend
    }
}

impl super::StripBackend for ClifBackend {}
