/// What an emulator does otherwise than the usual one.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) token: Option<String>,
    /// User name, secret and project id.
    pub(crate) service_account: Option<[String; 3]>,
    pub(crate) max_body: Option<usize>,
}

impl Settings {
    /// The largest body of a request to this path, as Mixpanel has it.
    pub(crate) fn max_body(&self, path: &str) -> usize {
        const MIB: usize = 1024 * 1024;
        let documented = if path == "/import" { 10 * MIB } else { 2 * MIB };
        self.max_body.unwrap_or(documented)
    }
}
