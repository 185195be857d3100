//! A Lambda function that does what functions should not: what its event says.

#![expect(clippy::disallowed_methods, reason = "it has no clock but the machine's")]

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, abort, exit};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    match std::env::var("NAUGHTY").as_deref() {
        Ok("exits") => exit(3),
        Ok("hangs") => std::future::pending().await,
        Ok("raises") => panic!("it cannot begin"),
        Ok("says so") => {
            let api = std::env::var("AWS_LAMBDA_RUNTIME_API")?;
            let mut stream = TcpStream::connect(&api)?;
            let id = std::process::id();
            let error = format!("{{\"errorType\":\"Init\",\"errorMessage\":\"{id}\"}}");
            let post = "POST /2018-06-01/runtime/init/error HTTP/1.1";
            let length = error.len();
            write!(stream, "{post}\r\nHost: {api}\r\nContent-Length: {length}\r\n\r\n{error}")?;
            // It should end now.
            std::future::pending().await
        }
        Ok("asks and exits") => {
            let api = std::env::var("AWS_LAMBDA_RUNTIME_API")?;
            let mut stream = TcpStream::connect(&api)?;
            let next = "GET /2018-06-01/runtime/invocation/next HTTP/1.1";
            write!(stream, "{next}\r\nHost: {api}\r\n\r\n")?;
            exit(0)
        }
        _ => lambda_runtime::run(service_fn(misbehave)).await,
    }
}

async fn misbehave(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (what, context) = (event.payload["do"].as_str().unwrap_or_default(), event.context);
    let of = |key: &str| event.payload[key].as_u64().unwrap_or_default();
    match what {
        "raise" => return Err("it went wrong".into()),
        "hang" => std::future::pending().await,
        "exit" => exit(i32::try_from(of("code"))?),
        "abort" => abort(),
        "exit later" => {
            let after = Duration::from_millis(of("ms"));
            std::thread::spawn(move || {
                std::thread::sleep(after);
                exit(4)
            });
        }
        "print" => {
            let line = "x".repeat(99);
            for _ in 0..of("bytes") / 100 {
                println!("{line}");
            }
        }
        "fork" => {
            // It outlives this invocation, and holds on to the output.
            let child =
                Command::new("setsid").args(["sleep", &of("seconds").to_string()]).spawn()?;
            return Ok(json!({ "child": child.id() }));
        }
        "return" => return Ok(json!("x".repeat(usize::try_from(of("bytes"))?))),
        "answer twice" => {
            let api = std::env::var("AWS_LAMBDA_RUNTIME_API")?;
            let path = format!("/2018-06-01/runtime/invocation/{}/response", context.request_id);
            for expected in ["HTTP/1.1 202", "HTTP/1.1 400"] {
                let mut stream = TcpStream::connect(&api)?;
                write!(
                    stream,
                    "POST {path} HTTP/1.1\r\nHost: {api}\r\nContent-Length: 7\r\n\r\n\"first\""
                )?;
                let mut status = [0; 12];
                stream.read_exact(&mut status)?;
                if status != expected.as_bytes() {
                    exit(9);
                }
            }
            return Ok(json!("third"));
        }
        "note" => {
            // Each run writes down when it began and when it ended.
            let custom = context.client_context.map(|it| it.custom).unwrap_or_default();
            let mut notes = OpenOptions::new().append(true).open(std::env::var("NOTES")?)?;
            let mut note = |what: &str| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let (task, attempt) = (&custom["task_id"], &custom["attempt"]);
                let line =
                    format!("{what} {task} {attempt} {} {}\n", now.as_millis(), std::process::id());
                notes.write_all(line.as_bytes())
            };
            note("begin")?;
            tokio::time::sleep(Duration::from_millis(of("ms"))).await;
            note("end")?;
        }
        "sleep" => tokio::time::sleep(Duration::from_millis(of("ms"))).await,
        "tell" => {
            return Ok(json!({
                "request_id": context.request_id,
                "function": context.env_config.function_name,
                "memory": context.env_config.memory,
                "arn": context.invoked_function_arn,
                "trace": context.xray_trace_id,
                "client": context.client_context.map(|it| it.custom),
                "stage": std::env::var("STAGE").ok(),
                "pid": std::process::id(),
                "left_ms": context.deadline,
            }));
        }
        _ => {}
    }
    Ok(Value::Null)
}
