//! Why a visitor gets an answer of our own: whose fault, which status, which metric label. The one table.

/// A request that the gateway has to answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.label())]
pub enum Refusal {
    /// The head or the body's framing is not HTTP/1 that every parser reads alike; status from the parser.
    BadRequest(u16),
    /// No complete head within the listener's `header` deadline.
    HeadTimeout,
    /// The body stopped flowing for longer than `stream_idle`.
    BodyTimeout,
    /// The body is larger than `limits.body_bytes`.
    BodyTooLarge,
    /// A method that the gateway does not forward (`CONNECT`).
    MethodRefused,
    /// No route matches.
    NoRoute,
    /// Every frps of the pool says that it has no tunnel for this host and path.
    NoTunnel,
    /// The host's tunnels are known, but none answers now.
    TunnelAway,
    /// Every endpoint of the pool is down, unhealthy, or weighs 0.
    NoEndpoint,
    /// Every endpoint is at its limit, and the queue is full or the wait too long.
    Overloaded,
    /// The visitor's session is at an endpoint that is gone, and the pool's affinity is strict.
    SessionAway,
    /// Connecting failed wherever it was tried.
    ConnectFailed,
    /// The response head did not come in time.
    UpstreamTimeout,
    /// The endpoint broke the connection, and the request may have run, or no attempt is left.
    UpstreamBroken,
    /// The endpoint's answer is not valid HTTP/1.
    UpstreamInvalid,
    /// A non-idempotent request met frps's own page after its body was sent: it may have run (502).
    MayHaveRun,
    /// The gateway is shutting down.
    ShuttingDown,
    /// The tunnels want other credentials than the visitor's.
    Unauthorized,
    /// The route wants a certificate that the client hasn't shown, or another's.
    ClientRefused,
    /// A WebSocket was asked for, and the endpoint speaks HTTP/2 without them (RFC 8441).
    NoWebSocket,
    /// The host's TLS doesn't end at this listener, or the connection's certificate isn't for it.
    Misdirected,
}

/// Labels of [`Refusal`], in the order of [`Refusal::index`].
pub const ERROR_CLASSES: [&str; 21] = [
    "bad_request",
    "head_timeout",
    "body_timeout",
    "body_too_large",
    "method_refused",
    "no_route",
    "no_tunnel",
    "tunnel_away",
    "no_endpoint",
    "connect_failed",
    "upstream_timeout",
    "upstream_broken",
    "upstream_invalid",
    "may_have_run",
    "shutting_down",
    "overloaded",
    "session_away",
    "unauthorized",
    "client_refused",
    "no_websocket",
    "misdirected",
];

impl Refusal {
    /// Index into [`ERROR_CLASSES`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::BadRequest(_) => 0,
            Self::HeadTimeout => 1,
            Self::BodyTimeout => 2,
            Self::BodyTooLarge => 3,
            Self::MethodRefused => 4,
            Self::NoRoute => 5,
            Self::NoTunnel => 6,
            Self::TunnelAway => 7,
            Self::NoEndpoint => 8,
            Self::ConnectFailed => 9,
            Self::UpstreamTimeout => 10,
            Self::UpstreamBroken => 11,
            Self::UpstreamInvalid => 12,
            Self::MayHaveRun => 13,
            Self::ShuttingDown => 14,
            Self::Overloaded => 15,
            Self::SessionAway => 16,
            Self::Unauthorized => 17,
            Self::ClientRefused => 18,
            Self::NoWebSocket => 19,
            Self::Misdirected => 20,
        }
    }

    /// The `class` label, also sent in the `x-frp-gateway` header.
    #[must_use]
    pub const fn label(self) -> &'static str {
        ERROR_CLASSES[self.index()]
    }

    /// Status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest(status) => status,
            Self::HeadTimeout | Self::BodyTimeout => 408,
            Self::Unauthorized => 401,
            Self::ClientRefused => 403,
            Self::Misdirected => 421,
            Self::BodyTooLarge => 413,
            Self::MethodRefused => 405,
            Self::NoRoute | Self::NoTunnel => 404,
            Self::TunnelAway
            | Self::NoEndpoint
            | Self::ShuttingDown
            | Self::Overloaded
            | Self::SessionAway => 503,
            Self::UpstreamTimeout => 504,
            Self::ConnectFailed
            | Self::UpstreamBroken
            | Self::UpstreamInvalid
            | Self::MayHaveRun
            | Self::NoWebSocket => 502,
        }
    }

    /// One sentence for the visitor.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "The request is malformed or ambiguous.",
            Self::HeadTimeout => "The request head did not arrive in time.",
            Self::BodyTimeout => "The request body stopped arriving.",
            Self::BodyTooLarge => "The request body is larger than allowed here.",
            Self::MethodRefused => "This method is not forwarded.",
            Self::NoRoute => "No route leads to this host and path.",
            Self::NoTunnel => "No FRP server has a tunnel for this host and path.",
            Self::TunnelAway => "The tunnel of this host is away. Please try again.",
            Self::NoEndpoint => "No endpoint is available. Please try again.",
            Self::Overloaded => "Every endpoint is at its limit. Please try again.",
            Self::SessionAway => "The endpoint of this session is away. Please try again.",
            Self::ConnectFailed => "No endpoint could be reached.",
            Self::UpstreamTimeout => "The endpoint did not answer in time.",
            Self::UpstreamBroken => "The endpoint broke the connection before it answered.",
            Self::UpstreamInvalid => "The endpoint's answer was not valid HTTP.",
            Self::MayHaveRun => {
                "The tunnel is gone; the request may have been carried out and was not repeated."
            }
            Self::ShuttingDown => "The gateway is shutting down.",
            Self::NoWebSocket => "The endpoint speaks HTTP/2 and takes no WebSockets.",
            Self::Misdirected => "This connection isn't for this host. Please ask over one of its own.",
            Self::Unauthorized => "This host wants a user name and a password.",
            Self::ClientRefused => "Your certificate doesn't let you in here, or you have shown none.",
        }
    }

    /// Whether the visitor should be told when to come back (`Retry-After`).
    #[must_use]
    pub const fn retry_later(self) -> bool {
        self.status() == 503
    }
}
