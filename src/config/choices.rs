//! Settings that are one of a few words.

use super::table::choices;

choices! {
    /// `pg_dump`'s output format.
    DumpOutput { Custom = "custom", Directory = "directory", Plain = "plain" }
    /// How it is made sure that nothing in a bucket is overwritten.
    CreateOnly { Conditional = "conditional", HeadThenPut = "head-then-put" }
    /// Encryption at rest by the store.
    Encryption { Bucket = "bucket", Aes256 = "AES256", AwsKms = "aws:kms" }
    /// How fast a store thaws.
    ThawSpeed { Standard = "standard", Bulk = "bulk", Expedited = "expedited" }
    /// Which server dumps are taken from.
    DumpFrom { Server = "server", Drill = "drill" }
    /// How the server makes the checkpoint that a base backup begins with.
    Checkpoint { Fast = "fast", Spread = "spread" }
    /// Names that `tracing_subscriber::EnvFilter` understands.
    LogLevel { Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace" }
    LogFormat { Text = "text", Json = "json" }
}

impl Encryption {
    /// What the store is asked for; `None`: as the bucket is set.
    pub fn asked(self) -> Option<&'static str> {
        (self != Self::Bucket).then(|| self.as_str())
    }
}
