//! page
pub mod proto;
#[cfg(test)]
mod testing;
