# Every command of the project. `just` lists them; each line also works when typed by hand.

_default:
    @just --list --unsorted

# a whole fleet on this machine, with commands to try
quickstart *options:
    ./quickstart {{ options }}

# what a submission must pass: format, lints, docs, all tests
ci:
    .ci/run

# all tests, against real frps and frpc
test:
    ./test

# one crate's tests, or those whose name contains a word: just t -p lb-algos maglev
t *arguments:
    cargo test --locked {{ arguments }}

# as CI judges it
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# write the format
fmt:
    cargo fmt --all

# the API documentation, opened
doc:
    cargo doc --workspace --no-deps --locked --open

# the release binary: target/release/frp-gateway
build:
    cargo build --locked --release -p frp-gateway

# validate a configuration: just check gateway.yaml
check file:
    cargo run --locked -q -p frp-gateway -- check {{ file }}

# run the gateway: just run gateway.yaml
run file:
    cargo run --locked --release -p frp-gateway -- run -c {{ file }}

# real frps and frpc, 0.71 and 0.61, and pebble, in frp-lab/bin
frp-lab:
    frp-lab/build

# the demo application on a port: just app 8000 shop
app port name="demo":
    cargo run --locked -q -p frp-gateway-loadtest --bin demo-app -- --listen 127.0.0.1:{{ port }} --name {{ name }}

# licences, sources, duplicate versions and advisories of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check

# the container image (needs docker or podman)
image engine="docker":
    {{ engine }} build -f deploy/Containerfile -t frp-gateway .
