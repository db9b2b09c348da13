'use strict';

/**
 * Stands in for `node-gyp-build`, by which the package `netlink` loads its native add-on: no native code travels in the executable,
 * and only the package's encoders are used (shared/kernel brings its own socket).
 */
module.exports = () => ({
  NativeNetlink() {
    throw new Error(
      'the add-on of the package "netlink" is not part of this executable; use shared/kernel/netlink',
    );
  },
});
