'use strict';
// Brings a fresh clone to the point where the other scripts can run: installs the locked npm
// packages when they are missing or older than the lock. Plain CommonJS for any Node from 20.19 on,
// with no packages.
const { spawnSync } = require('node:child_process');
const { existsSync, statSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const installed = join(root, 'node_modules', '.package-lock.json');
const locked = join(root, 'package-lock.json');

if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(locked).mtimeMs) {
  process.stderr.write('webjob: installing npm packages (once)\n');
  // Web users run the Node that comes with them.
  process.umask(0o022);
  const npm = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (npm.status !== 0) {
    process.stderr.write(
      'webjob: error: npm ci failed\nwebjob: hint: see its messages above; is the npm registry reachable\n',
    );
    process.exit(1);
  }
}
