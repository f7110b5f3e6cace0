/// How a request wants to be answered: `strict=1`, `verbose=1`.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    pub(crate) strict: bool,
    pub(crate) verbose: bool,
}

impl Flags {
    /// Reads the query, and the form too: the official Python SDK sends `verbose` beside `data`.
    /// The values are 0 and 1; any other counts as 0.
    pub(crate) fn read(&mut self, parameters: &[u8]) {
        for (name, value) in form_urlencoded::parse(parameters) {
            match &*name {
                "strict" => self.strict = value == "1",
                "verbose" => self.verbose = value == "1",
                _ => {}
            }
        }
    }
}
