//! A client's settings from a config file, with the feature `serde`.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde_core::de::value::MapAccessDeserializer;
use serde_core::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::client::{ClientBuilder, Compression, Region, RetryPolicy};
use crate::json::members::NUMBER;

/// All settings, each under the name of the builder's method.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename = "ClientBuilder")]
struct ConfigFile {
    token: Option<SecretText>,
    region: Option<FromText<Region>>,
    endpoint: Option<String>,
    allow_plain_http: Option<bool>,
    service_account: Option<Section<AccountConfig>>,
    max_batch: Option<usize>,
    max_body: Option<usize>,
    connections: Option<usize>,
    compression: Option<FromText<Compression>>,
    retry: Option<Section<RetryConfig>>,
    timeout: Option<DurationText>,
    connect_timeout: Option<DurationText>,
    strict: Option<bool>,
    proxy: Option<SecretText>,
    no_proxy: Option<bool>,
    #[cfg(feature = "tls")]
    root_certificates: Option<String>,
    #[cfg(feature = "platform-verifier")]
    platform_verifier: Option<bool>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountConfig {
    user: SecretText,
    secret: SecretText,
    project_id: ProjectId,
}

#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "expected a project id: text or a number")]
enum ProjectId {
    Number(u64),
    Text(String),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryConfig {
    attempts: Option<u32>,
    base_delay: Option<DurationText>,
    max_delay: Option<DurationText>,
    deadline: Option<DurationText>,
}

/// A text that may hold a secret. The errors of formats quote what they find in place of a text, which may be the secret
/// without its quotes.
struct SecretText(String);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hidden = |_| de::Error::custom("expected text (the value is not shown)");
        String::deserialize(deserializer).map(Self).map_err(hidden)
    }
}

/// Settings under a common name. The error about another value in their place does not show it: it may be a secret.
struct Section<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Section<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `deserialize_map`: then a format may write the error, and not the visitor.
        let visitor = SectionVisitor(PhantomData);
        deserializer.deserialize_any(visitor).map(Self)
    }
}

struct SectionVisitor<T>(PhantomData<T>);

/// Writes the methods of a visitor for values of other types. By default, the error quotes the value.
macro_rules! refuse {
    ($($visit:ident($type:ty): $name:literal),*) => {$(
        fn $visit<E: de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Err(E::invalid_type(de::Unexpected::Other($name), &self))
        }
    )*};
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for SectionVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings, each with its name")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    refuse!(visit_str(&str): "text");
    refuse!(visit_i64(i64): "integer", visit_u64(u64): "integer", visit_f64(f64): "float");
    refuse!(visit_i128(i128): "integer", visit_u128(u128): "integer");
}

/// A value that is written as text.
struct FromText<T>(T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for FromText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A duration: text with a unit (`"30s"`, `"500ms"`, `"5m"`), or a number of seconds.
struct DurationText(Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DurationVisitor).map(Self)
    }
}

struct DurationVisitor;

impl<'de> Visitor<'de> for DurationVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"30s\" or a number of seconds")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Str(text), &self);
        humantime::parse_duration(text).map_err(invalid)
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        Ok(Duration::from_secs(seconds))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Duration, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Signed(seconds), &self);
        u64::try_from(seconds)
            .map(Duration::from_secs)
            .map_err(invalid)
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Duration, E> {
        let invalid = |_| E::invalid_value(de::Unexpected::Float(seconds), &self);
        Duration::try_from_secs_f64(seconds).map_err(invalid)
    }

    /// Reads a number if another crate enables `arbitrary_precision` of `serde_json`, which presents fractions as maps.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Duration, A::Error> {
        match members.next_entry::<String, String>()? {
            Some((name, number)) if name == NUMBER => {
                let seconds = number.parse().ok();
                let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let invalid = || de::Error::invalid_value(de::Unexpected::Other(&number), &self);
                time.ok_or_else(invalid)
            }
            _ => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        }
    }
}

/// Reads the settings from a config file of any format. Each setting is optional and has the name of its method. An unknown
/// name is an error.
///
/// ```
/// use mixpanel_groups::ClientBuilder;
///
/// let config = r#"{
///     "token": "PROJECT_TOKEN",
///     "region": "eu",
///     "connections": 4,
///     "compression": "gzip:6",
///     "timeout": "10s",
///     "retry": { "attempts": 5, "max_delay": "30s" },
///     "proxy": "http://proxy:3128"
/// }"#;
/// let client = serde_json::from_str::<ClientBuilder>(config)?.build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A duration is a text with a unit, such as `"30s"` or `"500ms"`, or a number of seconds. `retry` has the methods of
/// [`RetryPolicy`], and `service_account` has `user`, `secret` and `project_id`. `region` and `endpoint` exclude each other,
/// as do `proxy` and `no_proxy`.
///
/// To keep the token out of the file, leave it out and add it with [`token`](ClientBuilder::token).
impl<'de> Deserialize<'de> for ClientBuilder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not as a `Section`: flattened into other settings, it would be given theirs too.
        let config = ConfigFile::deserialize(deserializer)?;
        let exclude = |one, other| Err(de::Error::custom(format!("{one} excludes {other}")));
        let mut builder = Self::new(config.token.map_or(String::new(), |token| token.0));
        match (config.region, config.endpoint) {
            (Some(_), Some(_)) => return exclude("`region`", "`endpoint`"),
            (Some(FromText(region)), None) => builder = builder.region(region),
            (None, Some(endpoint)) => builder = builder.endpoint(endpoint),
            (None, None) => {}
        }
        match (config.proxy, config.no_proxy) {
            (Some(_), Some(true)) => return exclude("`proxy`", "`no_proxy`"),
            (Some(SecretText(proxy)), _) => builder = builder.proxy(proxy),
            (None, Some(true)) => builder = builder.no_proxy(),
            (None, _) => {}
        }
        #[cfg(feature = "platform-verifier")]
        if config.platform_verifier == Some(true) {
            if config.root_certificates.is_some() {
                return exclude("`root_certificates`", "`platform_verifier`");
            }
            builder = builder.platform_verifier();
        }
        #[cfg(feature = "tls")]
        if let Some(pem) = config.root_certificates {
            builder = builder.root_certificates(pem);
        }
        if let Some(Section(account)) = config.service_account {
            let project_id = match account.project_id {
                ProjectId::Number(number) => number.to_string(),
                ProjectId::Text(text) => text,
            };
            builder = builder.service_account(account.user.0, account.secret.0, project_id);
        }
        if let Some(Section(retry)) = config.retry {
            builder = builder.retry(retry.policy());
        }
        /// Passes a setting to its method, if it is given.
        macro_rules! apply {
            ($($name:ident $(.$field:tt)?),*) => {$(
                if let Some(value) = config.$name {
                    builder = builder.$name(value$(.$field)?);
                }
            )*};
        }
        apply!(
            allow_plain_http,
            max_batch,
            max_body,
            connections,
            compression.0
        );
        apply!(timeout.0, connect_timeout.0, strict);
        Ok(builder)
    }
}

impl RetryConfig {
    fn policy(self) -> RetryPolicy {
        let mut policy = RetryPolicy::default();
        if let Some(attempts) = self.attempts {
            policy = policy.attempts(attempts);
        }
        if let Some(DurationText(delay)) = self.base_delay {
            policy = policy.base_delay(delay);
        }
        if let Some(DurationText(delay)) = self.max_delay {
            policy = policy.max_delay(delay);
        }
        if let Some(DurationText(deadline)) = self.deadline {
            policy = policy.deadline(deadline);
        }
        policy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_text_with_a_unit_or_a_number_of_seconds() {
        let read = |json: &str| {
            let duration = serde_json::from_str(json).map(|DurationText(duration)| duration);
            duration.map_err(|error| error.to_string())
        };
        for (json, millis) in [
            ("10", 10_000),
            ("0", 0),
            ("1.5", 1_500),
            (r#""10s""#, 10_000),
            (r#""500ms""#, 500),
        ] {
            assert_eq!(read(json), Ok(Duration::from_millis(millis)), "{json}");
        }
        let expected = r#"expected a duration such as "30s" or a number of seconds"#;
        for json in ["-1", "-1.5", "1e300", r#""10""#, "true"] {
            let error = read(json).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
