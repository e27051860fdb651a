//! The demo application as a program, for the quick start and for trying things by hand.

use std::{
    env,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use frp_gateway_loadtest::{
    demo::DemoApp,
    lab::{FreePorts, LabError},
};

const USAGE: &str = "\
usage: demo-app --listen ADDRESS:PORT --name NAME [--delay MILLISECONDS] [--control ADDRESS:PORT]
           serve the demo application (port 0 lets the system choose); on the control port, loopback only, it is told
           how to misbehave: POST /delay?ms=500&jitter=5, /fail?percent=100&status=500&ms=1, /healthy?yes=0
       demo-app --free-ports COUNT
           print that many free loopback ports, one a line
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        write!(io::stdout(), "{USAGE}").ok();
        return ExitCode::SUCCESS;
    }
    let Some(command) = parse(&arguments) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo-app: {error}");
            ExitCode::FAILURE
        }
    }
}

enum Command {
    Serve { listen: SocketAddr, name: String, delay: Duration, control: Option<SocketAddr> },
    FreePorts(u16),
}

/// `None` when the arguments make no sense.
fn parse(arguments: &[String]) -> Option<Command> {
    let (mut listen, mut name, mut delay, mut control, mut count) = (None, None, Duration::ZERO, None, None);
    for pair in arguments.chunks(2) {
        let [key, value] = pair else { return None };
        match key.as_str() {
            "--listen" => listen = Some(value.parse().ok()?),
            "--name" => name = Some(value.clone()),
            "--delay" => delay = Duration::from_millis(value.parse().ok()?),
            "--control" => control = Some(value.parse().ok()?),
            "--free-ports" => count = Some(value.parse().ok()?),
            _ => return None,
        }
    }
    match (listen, name, count) {
        (Some(listen), Some(name), None) => Some(Command::Serve { listen, name, delay, control }),
        (None, None, Some(count)) => Some(Command::FreePorts(count)),
        _ => None,
    }
}

fn run(command: Command) -> Result<(), LabError> {
    match command {
        Command::Serve { listen, name, delay, control } => {
            let app = DemoApp::start_steered(listen, &name, control)?;
            app.set_delay(delay);
            writeln!(io::stdout(), "demo-app {name} listens on {}", app.addr()).ok();
            app.run_forever();
        }
        Command::FreePorts(count) => {
            let mut ports = FreePorts::new();
            let numbers = (0..count).map(|_| ports.take()).collect::<Result<Vec<_>, _>>()?;
            for number in numbers {
                writeln!(io::stdout(), "{number}").ok();
            }
        }
    }
    Ok(())
}
