//! The guide: one page a question that users have.

macro_rules! pages {
    ($($name:ident = $file:literal),*) => {$(
        #[doc = include_str!(concat!("../guide/", $file, ".md"))]
        pub mod $name {}
    )*};
}

pages!(
    _1_getting_started = "1_getting_started",
    _2_mapping = "2_mapping",
    _3_operations = "3_operations",
    _4_keeping_in_sync = "4_keeping_in_sync",
    _5_in_a_web_server = "5_in_a_web_server",
    _6_durability = "6_durability",
    _7_testing = "7_testing",
    _8_errors = "8_errors",
    _9_migrating = "9_migrating",
    _10_faq = "10_faq"
);
