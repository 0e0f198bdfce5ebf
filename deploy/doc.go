// Package deploy holds what a node is run with: a systemd unit, an image, a compose
// file, a Helm chart. It is a module of its own, so that what checks them is no
// dependency of the server.
package deploy
