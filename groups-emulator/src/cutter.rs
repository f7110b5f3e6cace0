//! What of long values the page shows.

use serde_json::Value;

/// The longest text that is shown, in characters, and the most items of a list.
const MAX_TEXT: usize = 1_000;
const MAX_LIST: usize = 100;
/// The most members of an object that are shown: all of an event's.
const MAX_MEMBERS: usize = 255;
/// About the most bytes of values in each part of a view.
const MAX_BYTES: usize = 256 * 1024;

/// Cuts long texts and lists, which then end in a text that says so, and everything once there is too much.
pub(crate) struct Cutter {
    /// How many bytes may still be shown.
    left: usize,
}

impl Default for Cutter {
    fn default() -> Self {
        Self { left: MAX_BYTES }
    }
}

impl Cutter {
    pub(crate) fn value(&mut self, value: &Value) -> Value {
        // What a value takes beside its text.
        self.left = self.left.saturating_sub(8);
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => {
                let mut shown = Vec::new();
                for item in items.iter().take(MAX_LIST) {
                    if self.left == 0 {
                        break;
                    }
                    shown.push(self.value(item));
                }
                if items.len() > shown.len() {
                    shown.push(format!("… and {} more", items.len() - shown.len()).into());
                }
                shown.into()
            }
            Value::Object(members) => {
                let mut shown = serde_json::Map::new();
                for (name, value) in members.iter().take(MAX_MEMBERS) {
                    if self.left == 0 {
                        break;
                    }
                    let name = self.text(name);
                    shown.insert(name, self.value(value));
                }
                if members.len() > shown.len() {
                    let more = members.len() - shown.len();
                    shown.insert("…".into(), format!("and {more} more").into());
                }
                shown.into()
            }
            other => other.clone(),
        }
    }

    fn text(&mut self, text: &str) -> String {
        let most = MAX_TEXT.min(self.left);
        self.left = self.left.saturating_sub(text.len().min(most));
        cut_at(text, most)
    }
}

/// Cuts a text that is longer than any that is shown.
pub(crate) fn cut(text: &str) -> String {
    cut_at(text, MAX_TEXT)
}

fn cut_at(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
