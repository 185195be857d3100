//! `burstd table`.

mod template;

use clap::Subcommand;

use super::exit::{Exit, say};
use super::{ConfigFile, block_on};
use crate::aws::{Clients, Created};
use crate::daemon;
use template::Template;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Make the table, its index and its TTL, if there is none
    Create(ConfigFile),
    /// Print the table for CloudFormation, Terraform or Pulumi
    Template(Template),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Exit> {
        match self {
            Command::Create(file) => block_on(create(&file)),
            Command::Template(template) => template.run(),
        }
    }
}

async fn create(file: &ConfigFile) -> Result<(), Exit> {
    let config = file.load()?;
    let clients = Clients::new(&daemon::place(&config.aws)).await?;
    let (table, region) = (&config.table, clients.region());
    match clients.table(table).create().await? {
        Created::New => say(format_args!(
            "table {table:?} made in {region}: on-demand, index due-index, TTL on expires_at"
        )),
        Created::Already => say(format_args!("table {table:?} in {region} is there and right")),
        Created::Differs(differences) => {
            let differences: Vec<_> =
                differences.iter().map(|difference| format!("\n  {difference}")).collect();
            Err(Exit::wrong_thing(format!(
                "table {table:?} in {region} is there and differs; nothing was changed:{}",
                differences.concat()
            )))
        }
    }
}
