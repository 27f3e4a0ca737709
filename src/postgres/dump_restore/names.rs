//! Names in a schema. Pure.

use std::fmt;

use serde::{Serialize, Serializer};

use super::sql::quoted;

/// A relation, an index, a sequence or what else has a name in a schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QualifiedName {
    pub schema: String,
    pub name: String,
}

impl QualifiedName {
    pub fn new(schema: &str, name: &str) -> Self {
        let (schema, name) = (schema.into(), name.into());
        Self { schema, name }
    }

    /// As SQL takes it, whatever is in it.
    pub fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// Another name in the same schema.
    pub fn beside(&self, name: &str) -> Self {
        Self::new(&self.schema, name)
    }
}

/// For people: as it is, without quotes.
impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Serialize for QualifiedName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
