//! Limits of configurations, checked before anything is built.

use super::ModelError;

/// Most extents of a network.
const MAX_LAYERS: usize = 1024;
/// Largest extent of a layer.
const MAX_EXTENT: usize = 1 << 24;
/// Most bases of an input.
const MAX_BASES: usize = 4096;
/// Most methods of one network.
const MAX_METHODS: usize = 16;

/// At least two extents, each within limits.
pub(super) fn layers(extents: &[usize]) -> Result<(), ModelError> {
    match extents.len() {
        found @ 0..2 => return Err(ModelError::FewLayers { found }),
        found if found > MAX_LAYERS => return Err(ModelError::ManyLayers { found, limit: MAX_LAYERS }),
        _ => {}
    }
    match extents.iter().position(|d| !(1..=MAX_EXTENT).contains(d)) {
        Some(index) => Err(ModelError::Extent { index, extent: extents[index], limit: MAX_EXTENT }),
        None => Ok(()),
    }
}

/// The number of bases.
pub(super) fn bases(grid: usize, order: usize) -> Result<usize, ModelError> {
    let sum = grid.checked_add(order).filter(|n| grid > 0 && *n <= MAX_BASES);
    sum.ok_or(ModelError::Bases { grid, order, limit: MAX_BASES })
}

/// One method or a few.
pub(super) fn methods(found: usize) -> Result<(), ModelError> {
    if (1..=MAX_METHODS).contains(&found) { Ok(()) } else { Err(ModelError::Methods { found, limit: MAX_METHODS }) }
}
