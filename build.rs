//! Compiles the protos without protoc, and gives messages that carry secrets a `Debug` that
//! shows none.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use protox::prost_reflect::{ExtensionDescriptor, MessageDescriptor, Value};

const ROOT: &str = "proto";
const PACKAGE: &str = "strongroom.v1";

/// The field that stands in an answer in place of its secrets.
const WRAPPED: &str = "wrapped";

/// What `put --from-json` reads back from what `show --output json` printed.
const READ_BACK: [&str; 6] = [
    "Connection",
    "DatabaseRole",
    "CertificateRole",
    "ElevationRole",
    "ElevationStep",
    "ElevationWindow",
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let out = Path::new(&out);

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_source_info(true).include_imports(true);
    let mut files = Vec::new();
    for entry in fs::read_dir(format!("{ROOT}/strongroom/v1"))? {
        files.push(entry?.path());
    }
    files.sort();
    compiler.open_files(files)?;

    let pool = compiler.descriptor_pool();
    let secret = pool
        .get_extension_by_name(&format!("{PACKAGE}.secret"))
        .ok_or("options.proto defines no `secret`")?;
    let mut config = tonic_prost_build::Config::new();
    let (mut skipped, mut redacted, mut debug_of) = (Vec::new(), String::new(), String::new());
    let ours = |m: &MessageDescriptor| m.package_name() == PACKAGE && !m.is_map_entry();
    for message in pool.all_messages().filter(ours) {
        if carries_secret(&message, &secret) {
            skipped.push(format!(".{}", message.full_name()));
            write_redacted(&mut redacted, &message, &secret)?;
        }
        if is_wrappable(&message) {
            write_wrappable(&mut redacted, &message, &secret)?;
        }
        if !holds_secret(&message, &secret) {
            derive_json(&mut config, &message);
        }
        write_debug_of(&mut debug_of, &message)?;
    }

    config.skip_debug(skipped);
    // A request that is encoded again, for its hash, has one order.
    config.btree_map(["."]);
    tonic_prost_build::configure()
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    fs::write(out.join("redacted.rs"), redacted)?;
    fs::write(
        out.join("debug_of.rs"),
        format!(
            "#[expect(clippy::too_many_lines, reason = \"generated code\")]\n\
             fn debug_of(message: &str, bytes: &[u8]) -> Option<String> {{\n\
             use prost::Message as _;\nmatch message {{\n{debug_of}_ => None,\n}}\n}}\n"
        ),
    )?;
    // Encoded by protox: prost's own types drop the custom options.
    fs::write(out.join("strongroom.v1.bin"), compiler.encode_file_descriptor_set())?;
    Ok(())
}

fn carries_secret(message: &MessageDescriptor, secret: &ExtensionDescriptor) -> bool {
    message.fields().any(|f| f.options().get_extension(secret).as_ref() == &Value::Bool(true))
}

/// Tells whether a message carries a secret, or items that do.
fn holds_secret(message: &MessageDescriptor, secret: &ExtensionDescriptor) -> bool {
    let parts = message.fields().filter_map(|field| field.kind().as_message().cloned());
    carries_secret(message, secret) || parts.into_iter().any(|part| holds_secret(&part, secret))
}

/// Lets the program print a message as JSON, by the names in the proto. Messages that carry
/// secrets are left out: where one must be shown, that is written down by hand.
fn derive_json(config: &mut tonic_prost_build::Config, message: &MessageDescriptor) {
    let name = format!(".{}", message.full_name());
    config.message_attribute(&name, "#[derive(::serde::Serialize)]");
    if READ_BACK.contains(&message.name()) {
        config.message_attribute(&name, "#[derive(::serde::Deserialize)]");
        config.message_attribute(&name, "#[serde(default, deny_unknown_fields)]");
    }
    for oneof in message.oneofs() {
        let oneof = format!(".{}", oneof.full_name());
        config.enum_attribute(&oneof, "#[derive(::serde::Serialize)]");
        config.enum_attribute(&oneof, "#[serde(rename_all = \"snake_case\")]");
    }
}

/// Writes a `Debug` that prints `[REDACTED]` for each field that carries a secret.
fn write_redacted(
    code: &mut String,
    message: &MessageDescriptor,
    secret: &ExtensionDescriptor,
) -> Result<()> {
    let name = message.name();
    if message.oneofs().next().is_some() || message.parent_message().is_some() {
        return Err(format!("{name} carries a secret: it must have no oneof and no parent").into());
    }
    writeln!(
        code,
        "impl ::core::fmt::Debug for {name} {{\n\
         fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{\n\
         f.debug_struct(\"{name}\")"
    )?;
    for field in message.fields() {
        let field_name = field.name();
        if field.options().get_extension(secret).as_ref() == &Value::Bool(true) {
            writeln!(code, ".field(\"{field_name}\", &::core::format_args!(\"[REDACTED]\"))")?;
        } else {
            writeln!(code, ".field(\"{field_name}\", &self.{field_name})")?;
        }
    }
    writeln!(code, ".finish()\n}}\n}}")?;
    Ok(())
}

/// Whether something else can stand in a message in place of its secrets.
fn is_wrappable(message: &MessageDescriptor) -> bool {
    let field = message.get_field_by_name(WRAPPED);
    field.is_some_and(|field| field.kind().as_message().is_some_and(|it| it.name() == "Wrapped"))
}

/// Writes how an answer is emptied of every field that carries or holds a secret: none is forgotten,
/// because none is named by hand.
fn write_wrappable(
    code: &mut String,
    message: &MessageDescriptor,
    secret: &ExtensionDescriptor,
) -> Result<()> {
    let (full, name) = (message.full_name(), message.name());
    writeln!(
        code,
        "impl super::Wrappable for {name} {{\n\
         const MESSAGE: &'static str = \"{full}\";\n\
         fn withhold(&mut self, wrapped: ::core::option::Option<Wrapped>) {{"
    )?;
    for field in message.fields().filter(|field| field.name() != WRAPPED) {
        let field_name = field.name();
        let holds = field.kind().as_message().is_some_and(|part| holds_secret(part, secret));
        if field.options().get_extension(secret).as_ref() == &Value::Bool(true) {
            writeln!(code, "::zeroize::Zeroize::zeroize(&mut self.{field_name});")?;
        } else if holds {
            writeln!(code, "self.{field_name} = ::core::default::Default::default();")?;
        }
    }
    writeln!(code, "self.wrapped = wrapped;\n}}\n}}")?;
    Ok(())
}

/// Writes the arm that decodes a message by its name and prints it, for the test that proves the
/// redaction.
fn write_debug_of(code: &mut String, message: &MessageDescriptor) -> Result<()> {
    let (full, name) = (message.full_name(), message.name());
    writeln!(
        code,
        "\"{full}\" => {name}::decode(bytes).ok().map(|message| format!(\"{{message:?}}\")),"
    )?;
    Ok(())
}
