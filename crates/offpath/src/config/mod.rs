//! The configuration: one TOML file, every key with a default.
//!
//! The structs here are what the file says; each knows how to become what a crate wants. A mistake is reported with
//! file, line, column, key, value and, for a wrong name, the nearest right one.

mod convert;
mod error;
mod sections;

use std::path::{Path, PathBuf};

use offpath_score::Condition;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use error::ConfigError;
use error::Text;
pub(crate) use sections::*;

/// Largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Where frames come from.
    pub(crate) capture: CaptureSection,
    /// Decoding of tunnels and fragments.
    pub(crate) decode: DecodeSection,
    /// Flows and reassembly.
    pub(crate) stream: StreamSection,
    /// HTTP parsing.
    pub(crate) http: HttpSection,
    /// Who the client is.
    pub(crate) client: ClientSection,
    /// Joining TLS handshakes seen outside of a terminator to the transactions inside it.
    pub(crate) join: JoinSection,
    /// TLS key logs that grow, and waiting for them.
    pub(crate) decryption: DecryptionSection,
    /// Users, sessions and passwords, and the key that hashes them.
    pub(crate) identity: IdentitySection,
    /// Scoring.
    pub(crate) score: ScoreSection,
    /// Login endpoints that the operator knows.
    pub(crate) login: Vec<LoginSection>,
    /// Policies, tried in order; none: the built-in ones.
    pub(crate) policy: Vec<PolicySection>,
    /// From verdicts to decisions.
    pub(crate) enforce: EnforceSection,
    /// Webhook targets.
    pub(crate) webhook: Vec<WebhookSection>,
    /// Delivery to the targets.
    pub(crate) delivery: DeliverySection,
    /// What `--inventory` learns.
    pub(crate) inventory: InventorySection,
    /// `offpath receive`.
    pub(crate) receive: ReceiveSection,
}

impl Config {
    /// Reads and checks `path`; without one, the defaults.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let size = std::fs::metadata(path).map_err(|e| ConfigError::unreadable(path, &e))?.len();
        if size > FILE_BYTES_MAX {
            return Err(ConfigError::too_long(path, size, FILE_BYTES_MAX));
        }
        let bytes = std::fs::read(path).map_err(|e| ConfigError::unreadable(path, &e))?;
        let text = String::from_utf8(bytes).map_err(|e| ConfigError::not_utf8(path, &e))?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Parses and checks the text of a file; `name` is for messages.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError::parse(name, text, &e))?;
        config.check(Text { name, text })?;
        Ok(config)
    }

    /// Returns the key file's path.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.identity.key_file.clone().unwrap_or_else(crate::identity::default_path)
    }

    /// Returns the outbox's path, whether or not this run uses it.
    pub(crate) fn outbox_file(&self) -> PathBuf {
        let default = || crate::identity::state_dir().join("outbox.redb");
        self.delivery.outbox_file.clone().unwrap_or_else(default)
    }

    /// Returns the files that a run reads, or that this or another one keeps: no output may go there.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let secrets = self.webhook.iter().filter_map(|webhook| webhook.secret_file.clone());
        let kept = [self.key_file(), self.outbox_file(), self.receive.state_path()];
        let receive = [&self.receive.secret_file, &self.receive.admin_token_file];
        secrets.chain(receive.into_iter().flatten().cloned()).chain(kept).collect()
    }
}

/// Parses any text as a configuration.
pub(crate) fn fuzz_config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        match Config::parse("fuzz", text) {
            Ok(_) => {}
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    }
}

/// A policy's condition: compiled when the file is read, so that a mistake points into the file.
#[derive(Clone, Debug)]
pub(crate) struct When {
    text: String,
    pub(crate) condition: Condition,
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match Condition::compile(&text) {
            Ok(condition) => Ok(Self { text, condition }),
            Err(e) => {
                let near = e.nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
                Err(serde::de::Error::custom(format!(
                    "{} at character {}{near}",
                    e.message,
                    e.span.start + 1
                )))
            }
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_line_key_value_and_the_nearest_right_name() {
        for (name, text, want) in [
            (
                "unknown key",
                "[capture]\nworkerz = 2\n",
                &["line 2", "workerz", "did you mean `workers`?"][..],
            ),
            ("unknown section", "[captur]\n", &["line 1", "captur", "did you mean `capture`?"]),
            ("wrong type", "[capture]\n\nworkers = \"two\"\n", &["line 3", "capture.workers", "\"two\""]),
            ("out of range", "[capture]\nworkers = 99\n", &["capture.workers", "99", "1", "16"]),
            (
                "bad network",
                "[client]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/99\"]\n",
                &["line 2", "trusted_proxies", "10.0.0.0/99"],
            ),
            (
                "bad condition",
                "[[policy]]\nname = \"p\"\nwhen = \"confidenze > 3\"\naction = \"block\"\n",
                &["line 3", "confidenze", "did you mean `confidence`?"],
            ),
            (
                "bad action",
                "[[policy]]\nname = \"p\"\nwhen = \"true\"\naction = \"blok\"\n",
                &["line 4", "`block`"],
            ),
            (
                "unknown signal",
                "[score.weights]\nlogin_surg = 2\n",
                &["login_surg", "did you mean `login_surge`?"],
            ),
            (
                "bad pointer",
                "[identity]\nuser_fields = [\"login\", \"/credentials/lo~gin\"]\n",
                &["identity.user_fields", "/credentials/lo~gin", "~0", "~1"],
            ),
            (
                "a range",
                "[capture]\nring_mib = 8\n# never\npoll_ms = 0\n",
                &["line 4", "capture.poll_ms = 0", "1 to 1000"],
            ),
            (
                "no header",
                "client.trusted_proxies = []\nclient.header = \"a b\"\n",
                &["line 2", "client.header", "a b", "no header can be called that"],
            ),
            (
                "the second of a list",
                "[[policy]]\nname = \"p\"\nwhen = \"true\"\naction = \"block\"\n\n[[policy]]\nname = \"q\"\nttl_secs = 0\nwhen = \"true\"\naction = \"block\"\n",
                &["line 8", "policy[1].ttl_secs = 0"],
            ),
            (
                "what is not there",
                "[[webhook]]\nname = \"a\"\nurl = \"http://x/\"\n",
                &["line 1", "webhook[0].secret_file = absent"],
            ),
            (
                "no name",
                "[identity]\npassword_fields = [\"\"]\n",
                &["identity.password_fields", "JSON pointer"],
            ),
            ("not TOML", "[capture\n", &["line 1"]),
        ] {
            let error = Config::parse("c.toml", text).err().map(|e| e.to_string()).unwrap_or_default();
            for part in want {
                assert!(error.contains(part), "{name}: {part:?} in {error:?}");
            }
            assert!(error.contains("c.toml"), "{name}: {error}");
        }
    }

    #[test]
    fn a_mistake_never_shows_a_secret() {
        for (name, text) in [
            ("unknown key", "[[webhook]]\nname = \"a\"\nsecrt = \"whsec_S3cr3tS3cr3tS3cr3tS3cr3t\"\n"),
            ("same line", "webhook = [{ name = \"a\", secret = \"whsec_S3cr3tS3cr3t\", sekret = 1 }]\n"),
            (
                "wrong type",
                "[[webhook]]\nname = \"whsec_S3cr3t\"\nurl = \"http://x/\"\ntimeout_ms = \"whsec_S3cr3t\"\n",
            ),
            ("without prefix", "[[webhook]]\nname = \"a\"\nsecret = S3cr3tS3cr3t\n"),
            ("no list", "[[webhook]]\nname = \"a\"\nsecret = [\"S3cr3tS3cr3t\"]\n"),
            ("password in a URL", "[[webhook]]\nname = \"a\"\nurll = \"https://user:S3cr3t@waf.example/\"\n"),
            (
                "password in a URL that is whole",
                "[[webhook]]\nname = \"a\"\nurl = \"https://user:S3cr3t@waf.example/\"\nsecret = \"whsec_x\"\n",
            ),
            (
                "wrong scheme",
                "[[webhook]]\nname = \"a\"\nurl = \"ftp://user:S3cr3t@waf.example/\"\nsecret = \"x\"\n",
            ),
        ] {
            let error = Config::parse("c.toml", text).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(!error.is_empty() && !error.contains("S3cr3t"), "{name}: {error}");
        }
        let text = "[[webhook]]\nname = \"a\"\nurl = \"https://waf.example/\"\nsecret = \"whsec_S3cr3t\"\n";
        let config = Config::parse("c.toml", text).unwrap();
        assert!(!format!("{config:?}").contains("S3cr3t"));
        assert!(!toml::to_string(&config).unwrap().contains("secret ="), "secrets are left out");
    }

    #[test]
    fn the_defaults_are_valid_and_print_as_a_file_that_parses_to_the_same() {
        let config = Config::parse("empty", "").unwrap();
        let text = toml::to_string(&config).unwrap();
        let again = Config::parse("printed", &text).unwrap();
        assert_eq!(toml::to_string(&again).unwrap(), text);
    }

    #[test]
    fn fuzz_bodies_run_on_seeds() {
        for seed in ["", "a", "[capture]\nworkers=1", "[[policy]]\nname=\"\"", "\u{0}", "[[[", "x={y={z={}}}"]
        {
            fuzz_config(seed.as_bytes());
        }
    }
}
