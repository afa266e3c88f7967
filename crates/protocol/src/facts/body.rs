//! What is kept of a body while it passes.

/// The part of one body that is looked into; zeroed when dropped.
pub struct BodyTap {
    kept: Vec<u8>,
    gap: bool,
}

impl BodyTap {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if !self.gap {
            self.kept.extend_from_slice(bytes);
        }
    }

    pub(super) fn gap(&mut self) {
        self.gap = true;
    }
}
