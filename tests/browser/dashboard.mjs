// node dashboard.mjs CONTROL_URL TOKEN [--screenshots FOLDER]
// Uses the dashboard as an operator does, by keyboard where it matters, in both colour schemes, and lets axe look at every
// state. Prints `created KEY` when a livestream was made and waits until it is published to; prints `live` then, and stops it.
import { readFileSync } from 'node:fs';
import { launch } from './chromium.mjs';

const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const [url, token, , folder] = process.argv.slice(2);
const LIMIT_MS = 30_000;

const wrong = [];
const browser = await launch();

async function check(page, name) {
  if (folder) await page.screenshot({ path: `${folder}/dashboard-${name}.png`, fullPage: true });
  await page.evaluate(axe);
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    const found = await page.evaluate(() => axe.run({ resultTypes: ['violations'] }));
    for (const one of found.violations) {
      for (const node of one.nodes) wrong.push(`${name}, ${scheme}: ${one.id}: ${node.target} ${node.failureSummary}`);
    }
  }
}

const expect = (what, holds) => { if (!holds) wrong.push(what); };

try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.setDefaultTimeout(LIMIT_MS);
  page.on('pageerror', (error) => wrong.push(String(error)));
  page.on('dialog', (dialog) => dialog.accept());
  await page.goto(url);
  await page.waitForSelector('#login:not([hidden])');
  await check(page, 'login');
  await page.keyboard.type(token);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#main:not([hidden])');
  await page.waitForSelector('#loading', { state: 'hidden' });
  await check(page, 'empty');

  await page.getByLabel('Title').fill('Evening show');
  await page.keyboard.press('Enter');
  const card = page.locator('article', { hasText: 'Evening show' }).first();
  await card.getByText('Stream key: shown only now.').waitFor();
  const key = await card.locator('.key code').nth(1).textContent();
  await check(page, 'created');
  console.log(`created ${key}`);

  await card.locator('.badge.live').waitFor();
  console.log('live');
  await check(page, 'live');
  await card.locator('.badge.away').waitFor();
  expect('a livestream without a publisher has a red badge', (await card.locator('.badge.live').count()) === 0);
  await check(page, 'away');
  await card.getByRole('button', { name: /^Stop/ }).click();
  await card.locator('.badge', { hasText: 'ended' }).waitFor();
  expect('the key of an ended livestream is still shown', (await card.locator('.key').count()) === 0);
  await check(page, 'ended');
} catch (error) {
  wrong.push(String(error));
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ok: wrong.length === 0, wrong }));
process.exit(wrong.length === 0 ? 0 : 1);
