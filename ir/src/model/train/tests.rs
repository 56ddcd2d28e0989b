//! Losses and updates against PyTorch's numbers.
