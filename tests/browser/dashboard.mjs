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
  const renditions = page.locator('#create').getByLabel('Renditions');
  expect('copy is offered first', (await renditions.locator('option').first().textContent()) === 'copy');
  await renditions.selectOption('standard');
  await page.getByText('The source as it is, 720p at 2.8 Mb/s, 480p at 1.4 Mb/s, 360p at 800 kb/s.').waitFor();
  await page.getByLabel('Title').focus();
  await page.keyboard.press('Enter');
  const card = page.locator('article', { hasText: 'Evening show' }).first();
  await card.getByText('Stream key: shown only now.').waitFor();
  const key = await card.locator('.key code').nth(1).textContent();
  await card.getByText('standard: the source as it is, 720p').waitFor();
  await check(page, 'created');
  await card.getByRole('button', { name: /^Change/ }).press('Enter');
  await card.getByLabel('Title').fill('Late show');
  await card.getByLabel('Renditions').selectOption('copy');
  await check(page, 'change');
  await page.setViewportSize({ width: 390, height: 844 });
  await check(page, 'change-phone');
  expect('the page is wider than a phone', await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await page.setViewportSize({ width: 1440, height: 900 });
  await card.getByLabel('Title').press('Enter');
  await page.locator('article h3', { hasText: 'Late show' }).waitFor();
  const shown = page.locator('article', { hasText: 'Late show' }).first();
  await shown.getByText('copy: the source as it is').waitFor();
  console.log(`created ${key}`);

  await shown.locator('.badge.live').waitFor();
  await shown.locator('img.picture').waitFor();
  console.log('live');
  await check(page, 'live');
  await shown.locator('.badge.away').waitFor();
  expect('a livestream without a publisher has a red badge', (await shown.locator('.badge.live').count()) === 0);
  await check(page, 'away');
  await shown.getByRole('button', { name: /^Stop/ }).click();
  await shown.locator('.badge', { hasText: 'ended' }).waitFor();
  expect('the key of an ended livestream is still shown', (await shown.locator('.key').count()) === 0);
  await check(page, 'ended');

  const tokens = page.locator('#tokens');
  await tokens.getByLabel('Name').fill('Studio');
  await tokens.getByLabel('Owner').fill('alice');
  await tokens.getByRole('button', { name: 'Make a token' }).click();
  const made = await tokens.locator('#newsecret code').textContent();
  expect('a token is not shown once it is made', made.startsWith('mrt_'));
  await tokens.locator('td', { hasText: 'Studio' }).waitFor();
  await page.locator('#changes td', { hasText: 'create token' }).first().waitFor();
  await check(page, 'tokens');
  await page.locator('#leave').click();
  await page.locator('#token').fill(made);
  await page.keyboard.press('Enter');
  await page.locator('#empty').waitFor();
  expect('a publisher sees what operators see', !(await page.locator('#nodes').isVisible()) && !(await page.locator('#tokens').isVisible()));
  await check(page, 'publisher');
} catch (error) {
  wrong.push(String(error));
} finally {
  await browser.close();
}
console.log(JSON.stringify({ ok: wrong.length === 0, wrong }));
process.exit(wrong.length === 0 ? 0 : 1);
