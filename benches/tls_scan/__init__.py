"""What testssl.sh finds at the gateway and at caddy."""
