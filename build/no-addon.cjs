'use strict';

/**
 * Replaces `node-gyp-build`, with which the package `netlink` loads its native add-on: the executable contains no add-on, and only the
 * package's encoders are used (shared/kernel has its own socket).
 */
module.exports = () => ({
  NativeNetlink() {
    throw new Error(
      'the add-on of the package "netlink" is not part of this executable; use shared/kernel/netlink',
    );
  },
});
