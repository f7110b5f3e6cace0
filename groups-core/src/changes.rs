use crate::{MixpanelGroup, Update};

/// The updates between two versions of a struct: see [`MixpanelGroup::changes_since`].
#[derive(Debug)]
#[must_use = "updates do nothing until they are sent"]
pub struct Changes(std::vec::IntoIter<Update<'static>>);

impl Changes {
    pub(crate) fn between<T: MixpanelGroup>(_new: &T, _old: &T) -> Self {
        Self(Vec::new().into_iter())
    }
}

impl Iterator for Changes {
    type Item = Update<'static>;

    fn next(&mut self) -> Option<Update<'static>> {
        self.0.next()
    }
}
