"""Settings of how a machine is reached over SSH: hosts, and the bastions before them."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from stacks.model import Model

HOST_KEY = r"^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp\d+) [A-Za-z0-9+/=]+"


class LoginSettings(Model):
    """An SSH server and who logs in."""

    address: str = Field(min_length=1, description="Name or IP address the SSH connection goes to.")
    port: int = Field(default=22, ge=1, le=65535, description="SSH port.")
    user: str = Field(
        default="root",
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*\$?$",
        description="SSH user; on a host: root, or one with `sudo -n`.",
    )
    private_key_file: str | None = Field(
        default=None, description="File with the SSH private key; left out: the SSH agent's keys."
    )
    private_key: str | None = Field(
        default=None,
        description="The SSH private key itself, instead of its file: `pulumi config set --secret --path`.",
    )
    agent_socket: str | None = Field(
        default=None, min_length=1, description="The SSH agent's socket; left out: SSH_AUTH_SOCK."
    )
    host_key: str | None = Field(
        default=None,
        pattern=HOST_KEY,
        description="The host's public key line (ssh-keyscan prints it; compare it on the host).",
    )
    host_key_file: str | None = Field(default=None, description="File with that line, instead of hostKey.")

    @model_validator(mode="after")
    def _one_host_key(self) -> Self:
        if (self.host_key is None) == (self.host_key_file is None):
            raise ValueError("need exactly one of hostKey and hostKeyFile: a host's key is always pinned")
        return self

    @model_validator(mode="after")
    def _one_private_key(self) -> Self:
        given = {
            "privateKey": self.private_key,
            "privateKeyFile": self.private_key_file,
            "agentSocket": self.agent_socket,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise ValueError(f"{' and '.join(names)}: both say which key logs in: leave one")
        if self.private_key is not None and not self.private_key.startswith("-----BEGIN "):
            raise ValueError("privateKey: found no PEM text: give the whole private key file's content")
        return self


class ProxySettings(LoginSettings):
    """A bastion: the connection to the host goes through it."""
