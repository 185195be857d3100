//! `burstd iam-policy`: the least rights that are enough for a configuration.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::ConfigFile;
use super::exit::{Exit, say};
use crate::aws::without_qualifier;
use crate::config::Config;

const HELP: &str = "\
The policy is for exactly this configuration: its table, its functions, and what
burstd really calls. Account and region stand as * where nothing says them.";

/// Print the least policy that is enough for this configuration
#[derive(Args)]
#[command(after_help = HELP)]
pub(super) struct Policy {
    #[command(flatten)]
    config: ConfigFile,
    /// Whose policy
    #[arg(long = "for", value_name = "WHO", value_enum, default_value_t = Who::Daemon)]
    who: Who,
    /// The account that table and functions are in, 12 digits
    #[arg(long, value_name = "ID", default_value = "*")]
    account: String,
    /// The region, if the configuration does not say it
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// On one line; it is JSON in any case
    #[arg(long)]
    json: bool,
}

/// Who needs the rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Who {
    /// `burstd run` and `doctor`
    Daemon,
    /// `burstd table create`, and the commands about tasks and queues
    Operator,
    /// `burstd put`, and everybody who inserts tasks
    Producer,
}

impl Policy {
    pub(super) fn run(self) -> Result<(), Exit> {
        let digits = self.account.len() == 12 && self.account.chars().all(|c| c.is_ascii_digit());
        if !digits && self.account != "*" {
            return Err(Exit::usage(format!(
                "--account {:?}: an account has 12 digits",
                self.account
            )));
        }
        let config = self.config.load()?;
        let region = self.region.or_else(|| config.aws.region.clone());
        let place =
            Place { region: region.unwrap_or_else(|| "*".to_owned()), account: self.account };
        let policy = match self.who {
            Who::Daemon => place.daemon(&config),
            Who::Operator => place.operator(&config),
            Who::Producer => place.producer(&config),
        };
        match self.json {
            true => say(policy),
            false => say(format!("{policy:#}")),
        }
    }
}

/// Where the resources are.
struct Place {
    region: String,
    account: String,
}

impl Place {
    fn daemon(&self, config: &Config) -> Value {
        let table = self.table(&config.table);
        let names: BTreeSet<_> = config.queues.iter().map(|queue| &queue.function).collect();
        let arns: Vec<_> = names.iter().map(|name| self.function(name)).collect();
        let whole: BTreeSet<_> =
            names.iter().map(|name| self.function(without_qualifier(name))).collect();
        let statements = [
            allow(
                "Tasks",
                &["dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:UpdateItem"],
                &json!([table]),
            ),
            allow("Due", &["dynamodb:Query"], &json!([format!("{table}/index/due-index")])),
            // A version or alias is a resource of its own
            // (docs.aws.amazon.com/lambda/latest/dg/lambda-api-permissions-ref.html).
            allow(
                "Run",
                &["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"],
                &json!(arns),
            ),
            allow("Concurrency", &["lambda:GetFunctionConcurrency"], &json!(whole)),
            allow("Account", &["lambda:GetAccountSettings"], &json!("*")),
        ];
        policy(&statements)
    }

    fn operator(&self, config: &Config) -> Value {
        let table = self.table(&config.table);
        let actions = [
            "dynamodb:BatchGetItem",
            "dynamodb:CreateTable",
            "dynamodb:DescribeTable",
            "dynamodb:DescribeTimeToLive",
            "dynamodb:GetItem",
            "dynamodb:Scan",
            "dynamodb:UpdateItem",
            "dynamodb:UpdateTimeToLive",
        ];
        let open = ["dynamodb:Query", "dynamodb:Scan"];
        policy(&[
            allow("Table", &actions, &json!([table])),
            allow("Open", &open, &json!([format!("{table}/index/due-index")])),
        ])
    }

    fn producer(&self, config: &Config) -> Value {
        let actions = ["dynamodb:BatchWriteItem", "dynamodb:DescribeTable", "dynamodb:PutItem"];
        policy(&[allow("Insert", &actions, &json!([self.table(&config.table)]))])
    }

    fn table(&self, name: &str) -> String {
        match name.starts_with("arn:") {
            true => name.to_owned(),
            false => self.arn("dynamodb", &self.account, &format!("table/{name}")),
        }
    }

    /// By name, `name:alias`, `ACCOUNT:function:NAME`, or ARN.
    fn function(&self, name: &str) -> String {
        match name.split_once(":function:") {
            _ if name.starts_with("arn:") => name.to_owned(),
            Some((account, name)) => self.arn("lambda", account, &format!("function:{name}")),
            None => self.arn("lambda", &self.account, &format!("function:{name}")),
        }
    }

    fn arn(&self, service: &str, account: &str, resource: &str) -> String {
        // docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
        let partition = match () {
            () if self.region.starts_with("cn-") => "aws-cn",
            () if self.region.starts_with("us-gov-") => "aws-us-gov",
            () => "aws",
        };
        format!("arn:{partition}:{service}:{}:{account}:{resource}", self.region)
    }
}

fn allow(id: &str, actions: &[&str], resource: &Value) -> Value {
    json!({ "Sid": id, "Effect": "Allow", "Action": actions, "Resource": resource })
}

fn policy(statements: &[Value]) -> Value {
    json!({ "Version": "2012-10-17", "Statement": statements })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str) -> Place {
        Place { region: region.to_owned(), account: "123456789012".to_owned() }
    }

    #[test]
    fn each_way_to_name_a_function_is_the_resource_that_lambda_checks() {
        let here = "arn:aws:lambda:eu-west-1:123456789012:function:f";
        let there = "arn:aws:lambda:us-east-1:999999999999:function:f:live";
        for (name, arn, whole) in [
            ("f", here.to_owned(), here.to_owned()),
            ("f:live", format!("{here}:live"), here.to_owned()),
            ("123456789012:function:f:7", format!("{here}:7"), here.to_owned()),
            (there, there.to_owned(), there.trim_end_matches(":live").to_owned()),
        ] {
            let place = place("eu-west-1");
            assert_eq!(place.function(name), arn);
            assert_eq!(place.function(without_qualifier(name)), whole, "{name}");
        }
        let table = place("cn-north-1").table("t");
        assert_eq!(table, "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/t");
    }
}
