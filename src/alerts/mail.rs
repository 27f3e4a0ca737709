//! A mail by SMTP.

use std::path::Path;

use anyhow::{Context, anyhow};
use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::response::{Category, Code};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message as Mail, Tokio1Executor};

use super::file::{Mail as MailChannel, MailTls};
use super::message::Message;
use super::refused::Refused;
use crate::config::read_private;
use crate::error::{Hint, one_line};

/// Sends it to all of the channel at once.
pub async fn send(channel: &MailChannel, message: &Message) -> anyhow::Result<()> {
    let mail = compose(channel, message)?;
    let host = &channel.host;
    let usual_port = match channel.tls {
        MailTls::Starttls => 587,
        MailTls::Tls => 465,
        MailTls::None => 25,
    };
    let tls = match channel.tls {
        MailTls::Starttls => Tls::Required(tls(host, channel.ca_file.as_deref())?),
        MailTls::Tls => Tls::Wrapper(tls(host, channel.ca_file.as_deref())?),
        MailTls::None => Tls::None,
    };
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(channel.port.unwrap_or(usual_port))
        .tls(tls);
    if let Some(user) = &channel.user {
        let file = channel.password_file.as_deref();
        let file = file.with_context(|| {
            format!("mail \"{}\" has a user without password_file", channel.name)
        })?;
        let password = read_private(file, "password_file", "put the password alone into it")?;
        let password = password.trim_end_matches(['\r', '\n']).to_string();
        transport = transport.credentials(Credentials::new(user.clone(), password));
    }
    let sent = transport.build().send(mail).await;
    sent.map(drop).map_err(|error| {
        let what = format!("\"{host}\" does not take the mail");
        // A login that fails fails for the others as well.
        let is_login = |code: Code| code.category == Category::Unspecified3;
        match error.is_permanent() && !error.status().is_some_and(is_login) {
            true => Refused(format!("{what}: {}", one_line(&anyhow!(error)))).into(),
            false => anyhow!(error).context(what),
        }
    })
}

fn compose(channel: &MailChannel, message: &Message) -> anyhow::Result<Mail> {
    let address = |text: &str| {
        let parsed: Result<Mailbox, _> = text.parse();
        parsed.with_context(|| format!("\"{text}\" is no mail address"))
    };
    let (subject, text) = message.mail();
    let mut mail = Mail::builder()
        .from(address(&channel.from)?)
        .subject(subject);
    for to in &channel.to {
        mail = mail.to(address(to)?);
    }
    // Programs that answer mails leave it alone.
    let automatic = lettre::message::header::HeaderName::new_from_ascii_str("Auto-Submitted");
    let mail = mail.raw_header(lettre::message::header::HeaderValue::new(
        automatic,
        "auto-generated".into(),
    ));
    mail.header(ContentType::TEXT_PLAIN)
        .body(text)
        .context("the mail cannot be written")
}

fn tls(host: &str, ca_file: Option<&Path>) -> anyhow::Result<TlsParameters> {
    let mut parameters = TlsParameters::builder(host.to_string());
    if let Some(file) = ca_file {
        let what = || format!("cannot use \"{}\", named by ca_file", file.display());
        let pem = std::fs::read(file)
            .with_context(what)
            .hint("name a PEM file with certificates")?;
        let certificate = Certificate::from_pem(&pem).with_context(what)?;
        parameters = parameters.add_root_certificate(certificate);
    }
    parameters.build().context("TLS cannot be used")
}
