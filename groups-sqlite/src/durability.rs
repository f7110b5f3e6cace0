use std::fmt;
use std::str::FromStr;

use mixpanel_groups::{Error, ErrorKind};

/// The durability of published updates: SQLite's setting `synchronous`, in WAL mode.
///
/// `Display` and `FromStr` use the names `full` and `normal`, for a configuration file or an environment
/// variable:
///
/// ```
/// use mixpanel_groups_sqlite::Durability;
///
/// let durability: Durability = "normal".parse()?;
/// assert_eq!(durability, Durability::Normal);
/// assert_eq!(durability.to_string(), "normal");
/// # Ok::<(), mixpanel_groups::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Survives the end of the process and power loss: each transaction waits for the disk.
    #[default]
    Full,
    /// Survives the end of the process. Power loss or a crash of the operating system may take the last
    /// transactions; what is left is complete and in order.
    Normal,
}

impl Durability {
    const ALL: [Self; 2] = [Self::Full, Self::Normal];

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// Writes `full` or `normal`.
impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Reads `full` or `normal`. Any other text is an error of the kind [`ErrorKind::Config`].
impl FromStr for Durability {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|each| each.name() == name);
        found.ok_or_else(|| {
            let message = format!("unknown durability {name:?}: expected \"full\" or \"normal\"");
            Error::new(ErrorKind::Config, message)
        })
    }
}
