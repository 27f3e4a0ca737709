use anyhow::anyhow;

use super::super::exit::wrong_usage;
use super::super::{Context, Exit, Format, print_json, print_text};
use crate::error::with_hint;
use crate::postgres::drill::write_canary;
use crate::postgres::replication::ConnInfo;

/// Writes a canary on the source.
pub async fn run(context: &Context) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    let Some(database) = &settings.drill.canary else {
        let error = anyhow!("\"drill.canary\" is not set: nothing is written on the server");
        let hint = "set it to the database that may have a schema \"walden\"";
        return Err(wrong_usage(with_hint(error, hint)));
    };
    let info = ConnInfo::from_process(settings.postgresql.dsn.expose())?;
    let written = write_canary(info, database).await?;
    match context.format {
        Format::Json => print_json(&written)?,
        Format::Table => {
            let made = match written.is_first {
                true => "table walden.canary is made\n",
                false => "",
            };
            let (id, at) = (&written.id, &written.at);
            print_text(&format!(
                "{made}canary {id} is written into database \"{database}\" at {at}\n"
            ))?;
        }
    }
    Ok(Exit::Success)
}
