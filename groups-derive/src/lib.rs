//! The derive macro of mixpanel-groups.
use proc_macro::TokenStream;

/// Derives.
#[proc_macro_derive(MixpanelGroup, attributes(mixpanel))]
pub fn derive(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
