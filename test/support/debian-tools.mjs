/**
 * The programs from outside that the tests judge us with, and the Debian packages that bring them.
 * Plain JavaScript, because `test/run.mjs` reads it before anything is built.
 */
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Administrators' folders are not on everybody's PATH, and half of these programs live there. */
const EXTRA_FOLDERS = ['/usr/local/sbin', '/usr/sbin', '/sbin'];

/** Folders where a package may put what is not a program. */
const QEMU_MODULE_FOLDERS = ['/usr/lib/x86_64-linux-gnu/qemu', '/usr/lib/aarch64-linux-gnu/qemu', '/usr/lib64/qemu'];

/**
 * Program (or feature) to Debian package.
 * @type {Readonly<Record<string, string>>}
 */
export const DEBIAN_PACKAGES = {
  thin_check: 'thin-provisioning-tools',
  thin_dump: 'thin-provisioning-tools',
  thin_restore: 'thin-provisioning-tools',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-iscsi': 'qemu-block-extra',
  'qemu-storage-daemon': 'qemu-system-common',
  'iscsi-ls': 'libiscsi-bin',
  'iscsi-inq': 'libiscsi-bin',
  'iscsi-readcapacity16': 'libiscsi-bin',
  'iscsi-perf': 'libiscsi-bin',
  'iscsi-test-cu': 'libiscsi-bin',
  tgtd: 'tgt',
  tgtadm: 'tgt',
  'mkfs.ext4': 'e2fsprogs',
  xz: 'xz-utils',
  mmdebstrap: 'mmdebstrap',
  gcc: 'gcc',
  pgrep: 'procps',
  tshark: 'tshark',
  'dbus-daemon': 'dbus-daemon',
  gdbus: 'libglib2.0-bin',
  python3: 'python3',
  script: 'bsdutils',
  systemctl: 'systemd',
};

/** Those that the tests under vitest ask for. They get no others, so that none is there only because somebody has installed it by hand. */
export const VITEST_TOOLS = [
  'thin_check',
  'thin_dump',
  'thin_restore',
  'qemu-img',
  'qemu-io',
  'qemu-nbd',
  'qemu-iscsi',
  'iscsi-ls',
  'iscsi-inq',
  'iscsi-readcapacity16',
  'iscsi-perf',
  'mkfs.ext4',
  'xz',
  'gcc',
  'pgrep',
  'tshark',
  'dbus-daemon',
  'gdbus',
  'python3',
  'script',
  'systemctl',
];

/** A PATH for children on which the administrators' programs are found as well. */
export function searchPath() {
  const folders = (process.env.PATH ?? '').split(delimiter).filter(Boolean);
  for (const folder of EXTRA_FOLDERS) if (!folders.includes(folder)) folders.push(folder);
  return folders.join(delimiter);
}

/**
 * Where `name` is, or null.
 * @param {string} name
 * @returns {string | null}
 */
export function findTool(name) {
  if (name === 'qemu-iscsi') return findQemuIscsi();
  for (const folder of searchPath().split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // Not in this folder.
    }
  }
  return null;
}

/** The module that gives qemu-img and qemu-io their `iscsi://` URLs; it is no program. */
function findQemuIscsi() {
  for (const folder of QEMU_MODULE_FOLDERS) {
    if (!existsSync(folder)) continue;
    const name = readdirSync(folder).find((entry) => /^block-iscsi.*\.so$/.test(entry));
    if (name) return join(folder, name);
  }
  return null;
}

/**
 * What is missing of `names`, and how to get it.
 * @param {string} name
 * @returns {string}
 */
export function missingToolMessage(name) {
  const packageName = DEBIAN_PACKAGES[name];
  return `${name} is not installed${packageName ? ` (Debian: apt-get install ${packageName})` : ''}`;
}
